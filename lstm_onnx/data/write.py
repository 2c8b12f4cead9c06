"""Writes data files record by record; a file appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import numpy as np

from ..atomic_io import atomic_write
from ..errors import FileError, reason, shown
from .formats import FORMATS, SINGLE, format_of, is_numeric, known_format, listing, native
from .piped import Piped, cut_on_error

_LONGEST_MEMBER = 2**16 - 1 - len(".npy")
"""Maximum bytes of a name in a zip file."""
_Stream = Iterator[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class _Job:
    """The arguments of a format's writer."""

    stream: BinaryIO
    rows: _Stream
    place: str
    many: bool
    compressed: bool


def write(
    target: str | os.PathLike[str],
    records: Iterable[Mapping[str, np.ndarray]],
    *,
    many: bool,
    format: str | None = None,
    stdout: BinaryIO | None = None,
    compressed: bool = False,
) -> tuple[str, ...]:
    """Write records of arrays to a data file.

    npz and safetensors store the arrays of one record by name, and those of many records as ``output.0``,
    ``output.1``.  jsonl and parquet store one record per line or row.  npy and csv store the first array of one
    record; csv takes ``(time, features)``, ``(time,)``, or three axes with a batch of one, and its header is
    ``NAME_0,NAME_1,...``, or ``NAME`` for one column.  Numbers are written as the shortest text that reads back as the
    same value in the array's dtype; booleans become 0 and 1.  A parquet column stores no sizes after an axis of size 0:
    ``(0, 3)`` reads back as ``(0, 0)``.

    Args:
        target: a path, or ``-`` for stdout.
        records: arrays of booleans, integers or floats of at most 64 bits.
        many: whether there is one record per sequence; False means exactly one record.
        format: one of `FORMATS`; by default from the suffix of the path.
        stdout: the stream for ``-``; ``sys.stdout.buffer`` by default.
        compressed: for npz, whether to deflate the arrays.

    Returns:
        The names of arrays that were left out, because the format stores a single array.

    Raises:
        FileError: the target cannot be written, or the format cannot store the records; the target is unchanged.
        MissingDependencyError: the format is parquet and pyarrow is not installed.
        BrokenPipeError: the reader of stdout has closed it.
        ValueError: `many` is False and there is more than one record.
    """
    place = os.fspath(target)
    to_stdout = place == "-"
    if format is not None:
        known_format(place, format)
    elif to_stdout:
        raise FileError(f"stdout: has no suffix; choose the format, one of {', '.join(FORMATS)}")
    format = format or format_of(place)
    place = "stdout" if to_stdout else place
    if many and format in SINGLE:
        others = listing(tuple(name for name in FORMATS if name not in SINGLE))
        raise FileError(f"{place}: {format} stores a single array, but there are several records; write {others}")
    rows = _checked(records, place, format, many)
    with _standard_output(stdout) if to_stdout else atomic_write(target) as stream:
        return _WRITERS[format](_Job(cast("BinaryIO", stream), rows, place, many, compressed))


@contextlib.contextmanager
def _standard_output(stdout: BinaryIO | None) -> Iterator[BinaryIO]:
    if stdout is None:
        if sys.stdout is None:  # under pythonw, or with the descriptor closed
            raise FileError("stdout: is closed; pass a file instead of -")
        stdout = sys.stdout.buffer
    try:
        yield cast("BinaryIO", Piped(stdout))
        stdout.flush()
    except BrokenPipeError:
        raise  # the reader has read enough (| head); the command line handles this
    except OSError as error:
        raise FileError(f"stdout: cannot be written: {error.strerror or error}") from error


def _checked(records: Iterable[Mapping[str, np.ndarray]], place: str, format: str, many: bool) -> _Stream:
    """The records, checked: at least one, only one unless `many`, and with arrays that every format can store."""
    index = -1
    for index, record in enumerate(records):
        if index and not many:
            raise ValueError("more than one record with many=False")
        if not record:
            raise FileError(f"{place}: record {index + 1} has no arrays")
        for name, value in record.items():
            if isinstance(value, (list, dict, type(None))):  # an ONNX sequence, map or optional
                raise FileError(
                    f"{place}: {name!r} is a {type(value).__name__}, not a tensor (an ONNX sequence, map or optional), "
                    f"which {format} cannot store; leave that output out of the model"
                )
        arrays = {name: np.asarray(value) for name, value in record.items()}
        for name, array in arrays.items():
            if not isinstance(name, str):
                raise FileError(f"{place}: record {index + 1} has a name that is not a string: {shown(name)}")
            if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
                raise FileError(f"{place}: the name {name!r} is not valid Unicode; rename it in the model")
            if not is_numeric(array.dtype):
                raise FileError(
                    f"{place}: {name!r} has dtype {array.dtype}, which {format} cannot store; cast it first"
                )
        yield {name: native(array) for name, array in arrays.items()}
    if index < 0:
        raise FileError(f"{place}: there are no records to write")


def _only(rows: _Stream) -> Mapping[str, np.ndarray]:
    (record,) = rows
    return record


def _named(rows: _Stream, many: bool) -> Iterator[tuple[str, np.ndarray]]:
    for index, record in enumerate(rows):
        for name, array in record.items():
            yield (f"{name}.{index}" if many else name), array


def _npy(stream: IO[bytes], array: np.ndarray) -> None:
    # numpy.lib.format.write_array would bypass the stream and write to the file descriptor.
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(cast("Any", stream), header)
    numbers = np.asarray(array.T if header["fortran_order"] else array, order="C")
    stream.write(numbers.reshape(-1).view(np.uint8).data)


@dataclass(frozen=True)
class _Unseekable:
    """A stream that can only be written to."""

    stream: BinaryIO

    def write(self, content: Any) -> int:
        return self.stream.write(content)

    def flush(self) -> None:
        self.stream.flush()


def _is_device(stream: BinaryIO) -> bool:
    """Whether a stream is a device, which may wrongly claim to be seekable: /dev/null is always at 0."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def _write_npz(job: _Job) -> tuple[str, ...]:
    import zipfile

    # numpy.savez would need all arrays at once, cannot store one named "file", and writes the time, whereas equal
    # arrays should make equal files.
    stream = cast("IO[bytes]", _Unseekable(job.stream)) if _is_device(job.stream) else job.stream
    with zipfile.ZipFile(stream, "w") as archive, cut_on_error(job.stream):
        for name, array in _named(job.rows, job.many):
            if "\0" in name or len(name.encode()) > _LONGEST_MEMBER:
                why = "has a zero byte" if "\0" in name else f"is longer than {_LONGEST_MEMBER:,} bytes"
                raise FileError(f"{job.place}: the name {name!r} {why}, which npz cannot store; write .jsonl instead")
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED if job.compressed else zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=True) as member:
                _npy(member, array)
    return ()


def _write_npy(job: _Job) -> tuple[str, ...]:
    (_, array), *others = _only(job.rows).items()
    _npy(job.stream, array)
    return tuple(name for name, _ in others)


def _write_safetensors(job: _Job) -> tuple[str, ...]:
    from safetensors import SafetensorError
    from safetensors.numpy import save

    # safetensors writes an array's memory as it is, so the order must be C's.
    arrays = {name: np.asarray(array, order="C") for name, array in _named(job.rows, job.many)}
    if "__metadata__" in arrays:  # safetensors would write this name, but could not read it
        raise FileError(f"{job.place}: safetensors reserves the name '__metadata__'; write .npz instead")
    try:
        job.stream.write(save(arrays))
    except SafetensorError as error:
        raise FileError(f"{job.place}: safetensors cannot store this: {reason(error)}; write .npz instead") from error
    return ()


def _write_csv(job: _Job) -> tuple[str, ...]:
    (name, array), *others = _only(job.rows).items()
    table = _as_table(name, array, job.place)
    job.stream.write(_csv_header(name, table.shape[1]).encode())
    for start in range(0, len(table), 1024):  # in parts, since numbers as text take several times the memory
        lines = (",".join(map(repr, row)) for row in _plain(table[start : start + 1024]))
        job.stream.write("".join(f"{line}\n" for line in lines).encode())
    return tuple(name for name, _ in others)


def _write_jsonl(job: _Job) -> tuple[str, ...]:
    from ..terminal_text import json_text

    for record in job.rows:
        line = json_text({name: _plain(array) for name, array in record.items()}, indent=None, finite=False)
        job.stream.write(f"{line}\n".encode())
        job.stream.flush()  # so that the reader of a pipe gets each record at once
    return ()


def _write_parquet(job: _Job) -> tuple[str, ...]:
    from .parquet import write_parquet

    write_parquet(job.stream, job.rows, job.place)
    return ()


_WRITERS: dict[str, Callable[[_Job], tuple[str, ...]]] = {
    "npz": _write_npz,
    "npy": _write_npy,
    "csv": _write_csv,
    "safetensors": _write_safetensors,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def _as_table(name: str, array: np.ndarray, place: str) -> np.ndarray:
    """`array` with the axes (rows, columns)."""
    table = array
    if array.ndim == 1:
        table = array[:, None]
    elif array.ndim == 3 and 1 in array.shape[:2]:
        table = array[0] if array.shape[0] == 1 else array[:, 0]
    if table.ndim != 2 or table.shape[1] == 0:
        raise FileError(f"{place}: {name!r} has shape {array.shape}, but csv stores a table; write .npz instead")
    return table


def _csv_header(name: str, columns: int) -> str:
    import csv
    import io

    from .text import is_number

    # torch may name values by numbers, and a header that is one number would read back as a row.
    is_plain = columns == 1 and name.strip() != "" and not is_number(name)
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([name] if is_plain else [f"{name}_{i}" for i in range(columns)])
    return line.getvalue()


def _plain(array: np.ndarray) -> Any:
    """`array` as nested lists of Python numbers whose repr is the shortest that reads back as the same value.

    The float32 0.1 is 0.10000000149011612 as a float64, whereas its shortest text, read as a float64, prints as 0.1.
    """
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = array.astype("S32").astype(np.float64)
    return array.tolist()
