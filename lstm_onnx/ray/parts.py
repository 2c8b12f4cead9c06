"""Divides a data set into parts, and finds which parts are finished in a folder of outputs.

Nothing here needs Ray.  A part's file appears complete or not at all, and says to which run it belongs, so a part that
is run twice, since its worker was lost, has one file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from ..data.parquet import require_pyarrow
from ..data.parquet_rows import RowReader
from ..errors import FileError, InputError
from ..runtime.file_digest import file_digest
from ..version import __version__
from .storage import TEMPORARY, Storage, readable, storage

MANIFEST = "_manifest.json"
"""The manifest's name; readers of a folder of Parquet files skip names that start with an underscore."""
SUCCESS = "_SUCCESS"
"""A file that exists once every part does, as Spark writes it."""
METADATA = "lstm_onnx.part"
"""The key of a part's own metadata."""
_PART_BYTES = 32 * 2**20
_PART_ROWS = 4096
_THREADS = 16
"""The number of threads that read footers: for remote files, almost all of the time is latency."""


@dataclass(frozen=True)
class Part:
    """Rows of one input file, whose outputs are one file.

    Attributes:
        number: the number of the part, in the order of the rows.
        file: the file's path within the data set's folder; "" if the data set is a file.
        start: its first row in the file, from 0.
        rows: the number of rows.
    """

    number: int
    file: str
    start: int
    rows: int

    @property
    def name(self) -> str:
        """The name of the file with its outputs; the order of names is that of the rows."""
        return f"part-{self.number:06d}.parquet"


@dataclass(frozen=True)
class Job:
    """A run: the model, the data and the folder of outputs.

    Attributes:
        model: the model's file, an absolute path.
        model_digest: the digest of its content.
        states: ``(input, output)`` pairs, for a file that does not name its own.
        data: the data set, a path or URI.
        data_digest: a digest of what is known about its files.
        files: each file's name, size and the digest of its footer, which are the same on every machine.
        columns: the columns to read; None for all.
        chunk: steps per call; None for whole sequences.
        out: the folder of outputs.
        parts: the parts in order.
    """

    model: str
    model_digest: str
    states: tuple[tuple[str, str], ...]
    data: str
    data_digest: str
    files: tuple[tuple[str, int, str], ...]
    columns: tuple[str, ...] | None
    chunk: int | None
    out: str
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(part.rows for part in self.parts)

    @property
    def target(self) -> Storage:
        """The folder of outputs (FileError)."""
        return storage(self.out, "a folder to write to")

    def place(self, part: Part) -> str:
        """The path or URI of a part's file, for messages."""
        return f"{self.data}/{part.file}" if part.file else self.data

    def identity(self) -> dict[str, Any]:
        """What determines the output rows, which the places of the files do not."""
        return {
            "model_sha256": self.model_digest,
            "states": [list(pair) for pair in self.states],
            "data_sha256": self.data_digest,
            "columns": None if self.columns is None else list(self.columns),
            "chunk": self.chunk,
        }

    def digest(self) -> str:
        """The digest of `identity` and of the division of the rows into parts."""
        content = {**self.identity(), "parts": [list(asdict(part).values()) for part in self.parts]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> bytes:
        """The manifest for the folder of outputs."""
        content = {
            "format": 1,
            "lstm_onnx": __version__,
            "model": self.model,
            "data": self.data,
            **self.identity(),
            "rows": self.rows,
            "parts": [list(asdict(part).values()) for part in self.parts],
        }
        return json.dumps(content, indent=1).encode()


def plan(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    chunk: int | None = None,
    states: tuple[tuple[str, str], ...] = (),
) -> Job:
    """Make the job that runs a model on a data set.

    Raises:
        FileError: the model cannot be read; the data is not a Parquet file or a folder of them, or its files have
            different columns; or the outputs would be in the folder of the data.
        MissingDependencyError: pyarrow is not installed.
    """
    source, target = storage(data, "a .parquet file or a folder of them"), storage(out, "a folder to write to")
    _require_apart(source, target)
    kind = source.kind()
    if not kind:
        raise FileError(f"{source.place}: there is no such file or folder", hint="expected Parquet files")
    names = [""] if kind == "file" else _names(source)
    with ThreadPoolExecutor(_THREADS) as threads:
        files = list(threads.map(lambda name: _File.read(source, name, columns), names))
    for file in files:
        if file.columns != files[0].columns:
            raise FileError(
                f"{source.place_of(file.name)}: has the columns {file.columns}, but "
                f"{source.place_of(files[0].name)} has {files[0].columns}; they must be alike"
            )
    parts = tuple(_divided(files))
    if not parts:
        raise FileError(f"{source.place}: has no rows; write at least one")
    facts = [[file.name, file.size, file.modified, file.footer] for file in files]
    return Job(
        os.path.abspath(model),  # noqa: PTH100 - without following links
        file_digest(model),
        states,
        source.place,
        hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        tuple((file.name, file.size, file.footer) for file in files),
        None if columns is None else tuple(columns),
        chunk,
        target.place,
        parts,
    )


@dataclass(frozen=True)
class _File:
    """A file of the data set, identified without reading all of it."""

    name: str
    size: int
    modified: int | None
    footer: str
    rows: int
    row_bytes: int
    columns: dict[str, str]

    @classmethod
    def read(cls, source: Storage, name: str, columns: Sequence[str] | None) -> _File:
        path, place = source.child(name), source.place_of(name)
        with readable(place):
            info = source.filesystem.get_file_info(path)
            with source.filesystem.open_input_file(path) as stream:
                reader = RowReader(stream, place, columns)
                size, footer = _size_and_footer(stream)
        return cls(name, size, info.mtime_ns, footer, reader.rows, reader.row_bytes, reader.columns)


def _size_and_footer(stream: Any) -> tuple[int, str]:
    """The size of a Parquet file, and the digest of its footer, which has its columns' places, minima and maxima."""
    size = stream.size()
    stream.seek(size - 8)  # a Parquet file ends with the size of its footer and a magic number, 4 bytes each
    length = min(int.from_bytes(stream.read(4), "little"), size - 8)
    stream.seek(size - 8 - length)
    return size, hashlib.sha256(stream.read(length)).hexdigest()


def _names(source: Storage) -> list[str]:
    """The Parquet files in a folder, sorted by path; names with a leading dot or underscore are skipped."""
    relative = [source.relative(info.path) for info in source.files(recursive=True)]
    names = [name for name in relative if not any(step.startswith((".", "_")) for step in name.split("/"))]
    if not names:
        raise FileError(f"{source.place}: has no Parquet files", hint="name a folder of .parquet files")
    for name in names:
        if not name.lower().endswith(".parquet"):
            raise FileError(
                f"{source.place}/{name}: is in a folder of .parquet files, but its name does not end in .parquet",
                hint="move or rename it",
            )
    return names


def _divided(files: list[_File]) -> Iterator[Part]:
    number = 0
    for file in files:
        step = min(_PART_ROWS, max(1, _PART_BYTES // max(file.row_bytes, 1)))
        for start in range(0, file.rows, step):
            yield Part(number, file.name, start, min(step, file.rows - start))
            number += 1


def _require_apart(source: Storage, target: Storage) -> None:
    if source.filesystem.type_name != target.filesystem.type_name:
        return
    data, out = (os.path.realpath(each.path) if each.is_local else each.path for each in (source, target))
    if out == data or out.startswith(f"{data.rstrip('/')}/"):
        raise FileError(f"{target.place}: is the folder of the data, or is in it", hint="name another folder")


# --- the folder of outputs ------------------------------------------------------------------------------------


def prepare(job: Job) -> tuple[Job, set[int]]:
    """Make the folder of outputs, or continue with the parts in it.

    Returns:
        The job, with the earlier run's division into parts if there was one, and the numbers of the finished parts.

    Raises:
        FileError: the folder has other files, or cannot be written.
        InputError: the folder is of a run with a different model, data or options.
    """
    target = job.target
    kind = target.kind()
    if kind not in ("", "folder"):
        raise FileError(f"{target.place}: is a file, but the outputs are a folder", hint="name a folder")
    content = target.read(MANIFEST) if kind else None
    if content is not None:
        before = _earlier(job, target, content)
        return before, finished_parts(before)
    others = [target.relative(info.path) for info in target.files(recursive=True)] if kind else []
    others = [name for name in others if not name.startswith(TEMPORARY)]
    if others:
        raise FileError(
            f"{target.place}: is not empty, but not of an earlier run; it has {others[0]}", hint="name another folder"
        )
    with readable(target.place):
        target.filesystem.create_dir(target.path, recursive=True)
    with target.replacing(MANIFEST) as stream:
        stream.write(job.to_json())
    return job, set()


def _earlier(job: Job, target: Storage, content: bytes) -> Job:
    """The job whose outputs are in a folder (InputError if it is not this job)."""
    place = f"{target.place}/{MANIFEST}"
    try:
        found = json.loads(content)
        version = found["format"]
        identity = {key: found[key] for key in job.identity()}
        parts = tuple(Part(*part) for part in found["parts"])
        rows = int(found["rows"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FileError("is damaged", path=place, hint="name another folder, or remove this one") from error
    if version != 1:
        raise FileError(f"has the format {version}; this lstm-onnx knows 1", path=place, hint="name another folder")
    words = {
        "model_sha256": "another model",
        "states": "other states",
        "data_sha256": "other data, or data whose files were changed or written again",
        "columns": "other columns",
        "chunk": "another number of steps per call",
    }
    different = [words[key] for key, value in job.identity().items() if identity[key] != value]
    if different:
        raise InputError(
            f"{target.place}: has outputs of an earlier run with {'; '.join(different)}",
            hint="name another folder, or remove this one",
        )
    before = replace(job, parts=parts)
    if before.rows != rows or rows != job.rows:
        raise FileError("is damaged: its numbers of rows differ", path=place, hint="name another folder")
    return before


def finished_parts(job: Job) -> set[int]:
    """The numbers of the parts whose files are complete and of this job (FileError if they cannot be read)."""
    target = job.target
    present = {target.relative(info.path) for info in target.files(recursive=False)}
    candidates = [part for part in job.parts if part.name in present]
    digest = job.digest()
    with ThreadPoolExecutor(_THREADS) as threads:
        complete = threads.map(lambda part: _is_complete(target, part, digest), candidates)
        return {part.number for part, found in zip(candidates, complete, strict=True) if found}


def _is_complete(target: Storage, part: Part, digest: str) -> bool:
    pa, pq = require_pyarrow()
    place = f"{target.place}/{part.name}"
    with readable(place), target.filesystem.open_input_file(target.child(part.name)) as stream:
        try:
            meta = pq.ParquetFile(stream).metadata
            written = (meta.metadata or {}).get(METADATA.encode())
            return bool(meta.num_rows == part.rows and json.loads(written or b"null") == part_metadata(part, digest))
        except (pa.ArrowException, OSError, ValueError):
            return False  # damaged, so it is written again


def part_metadata(part: Part, digest: str) -> dict[str, Any]:
    """The metadata that identify a part's file."""
    return {"run": digest, "part": part.number}


def complete(job: Job) -> None:
    """Mark the folder as complete (FileError if a part is missing)."""
    target = job.target
    finished = finished_parts(job)
    missing = [part for part in job.parts if part.number not in finished]
    if missing:
        raise FileError(
            f"{target.place}: {len(missing)} parts were written but are missing, such as {missing[0].name}",
            hint="write to a folder that every worker shares with this machine",
        )
    for info in target.files(recursive=False):
        if target.relative(info.path).startswith(TEMPORARY):
            with readable(target.place):
                target.filesystem.delete_file(info.path)
    with target.replacing(SUCCESS) as stream:
        stream.write(b"")


def open_rows(job: Job, file: str) -> tuple[RowReader, Any]:
    """Open a file of the data set; return a reader, and the stream to close afterwards.

    Raises:
        FileError: the file cannot be read, or differs from the one in the job.
    """
    source = storage(job.data, "a .parquet file or a folder of them")
    place = source.place_of(file)
    with readable(place):
        stream = source.filesystem.open_input_file(source.child(file))
        reader = RowReader(cast("Any", stream), place, job.columns)
        if (file, *_size_and_footer(stream)) not in job.files:
            raise FileError(
                f"{place}: was changed, or is a different file on {platform.node()}",
                hint="put it where every worker reads the same file",
            )
    return reader, stream
