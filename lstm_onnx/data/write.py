"""Writing: a file appears whole or not at all, and records are written as they come."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import numpy as np

from lstm_onnx.atomic_io import atomic_write
from lstm_onnx.errors import FileError

from .formats import FORMATS, SINGLE, format_of, is_numeric, known_format, listing, native, one_line

_LONGEST_MEMBER = 2**16 - 1 - len(".npy")
"""Bytes of a name in a zip file, by its format."""
_Stream = Iterator[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class _Out:
    """What a format's writer gets."""

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

    npz and safetensors hold one record's arrays by name, and many records' as ``output.0``,
    ``output.1``.  jsonl and parquet hold a record a line or row.  npy and csv hold the first array of
    one record: csv takes ``(time, features)``, ``(time,)``, or three axes with a batch of one, and its
    header is ``NAME_0,NAME_1,...``, or ``NAME`` for one column.  Text gets the shortest numbers that
    read back as the same values of the array's dtype; booleans become 0 and 1.  A parquet column
    holds no sizes beside an axis of size 0: ``(0, 3)`` reads back as ``(0, 0)``.

    Args:
        target: a path, or ``-`` for the standard output.
        records: taken one at a time; booleans, integers and floats of at most 64 bits.
        many: whether there is a record a sequence; False says that there is exactly one.
        format: one of `FORMATS`; left out, the path's suffix says it.
        stdout: what ``-`` writes to; ``sys.stdout.buffer`` where it is left out.
        compressed: of npz, deflate the arrays.

    Returns:
        The names of the arrays that the format could not hold and that were left out.

    Raises:
        FileError: the target cannot be written, or the format cannot hold the records; then the
            target is as it was.
        MissingDependencyError: the format is parquet and pyarrow is not installed.
        BrokenPipeError: nobody reads the standard output any more.
        ValueError: `many` is False and there is more than one record.
    """
    place = os.fspath(target)
    to_stdout = place == "-"
    if format is not None:
        known_format(place, format)
    elif to_stdout:
        raise FileError(f"stdout: has no name to tell the format; name it, one of {', '.join(FORMATS)}")
    format = format or format_of(place)
    place = "stdout" if to_stdout else place
    if many and format in SINGLE:
        able = listing(tuple(name for name in FORMATS if name not in SINGLE))
        raise FileError(f"{place}: {format} holds one array and there is a record a sequence; write {able}")
    rows = _checked(records, place, format, many)
    with _standard_output(stdout) if to_stdout else atomic_write(target) as stream:
        return _WRITERS[format](_Out(cast("BinaryIO", stream), rows, place, many, compressed))


@contextlib.contextmanager
def _standard_output(stdout: BinaryIO | None) -> Iterator[BinaryIO]:
    if stdout is None:
        if sys.stdout is None:  # under pythonw, or with the descriptor closed
            raise FileError("stdout: is closed; name a file instead of -")
        stdout = sys.stdout.buffer
    try:
        yield stdout
        stdout.flush()
    except BrokenPipeError:
        raise  # the shell's way to say that it has had enough (| head): the command line's to end quietly
    except OSError as error:
        raise FileError(f"stdout: cannot be written: {error.strerror or error}") from error


def _checked(records: Iterable[Mapping[str, np.ndarray]], place: str, format: str, many: bool) -> _Stream:
    """The records with arrays that every format can hold; at least one, and no more than was said."""
    index = -1
    for index, record in enumerate(records):
        if index and not many:
            raise ValueError("more than one record was given with many=False")
        if not record:
            raise FileError(f"{place}: record {index} holds no arrays; there is nothing to write")
        arrays = {name: np.asarray(array) for name, array in record.items()}
        for name, array in arrays.items():
            if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
                raise FileError(f"{place}: the name {name!r} is no text, and cannot be written; rename it in the model")
            if not is_numeric(array.dtype):
                raise FileError(
                    f"{place}: {name!r} is of dtype {array.dtype}, which {format} cannot hold; cast it first"
                )
        yield {name: native(array) for name, array in arrays.items()}
    if index < 0:
        raise FileError(f"{place}: there are no records to write; give at least one")


def _only(rows: _Stream) -> Mapping[str, np.ndarray]:
    (record,) = rows
    return record


def _named(rows: _Stream, many: bool) -> Iterator[tuple[str, np.ndarray]]:
    for index, record in enumerate(rows):
        for name, array in record.items():
            yield (f"{name}.{index}" if many else name), array


def _npy(stream: IO[bytes], array: np.ndarray) -> None:
    # Not numpy.lib.format.write_array: into a file it writes past the stream, which a pipe cannot do.
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(cast("Any", stream), header)
    numbers = np.asarray(array.T if header["fortran_order"] else array, order="C")
    stream.write(numbers.reshape(-1).view(np.uint8).data)


@dataclass(frozen=True)
class _Onwards:
    """A stream that can only be written to, one piece after the other."""

    stream: BinaryIO

    def write(self, content: Any) -> int:
        return self.stream.write(content)

    def flush(self) -> None:
        self.stream.flush()


def _is_device(stream: BinaryIO) -> bool:
    """Whether it may say that it can be sought in without having a place: /dev/null is always at 0."""
    try:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def _write_npz(out: _Out) -> tuple[str, ...]:
    import zipfile

    # Not numpy.savez: it wants all arrays at once, cannot have one named "file", and stamps the
    # time, where equal arrays shall be equal files.
    stream = cast("IO[bytes]", _Onwards(out.stream)) if _is_device(out.stream) else out.stream
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in _named(out.rows, out.many):
            if "\0" in name or len(name.encode()) > _LONGEST_MEMBER:
                why = "holds a zero byte" if "\0" in name else f"is longer than {_LONGEST_MEMBER:,} bytes"
                raise FileError(f"{out.place}: the name {name!r} {why}, which npz cannot hold; write .jsonl instead")
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED if out.compressed else zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=True) as member:
                _npy(member, array)
    return ()


def _write_npy(out: _Out) -> tuple[str, ...]:
    (_, array), *others = _only(out.rows).items()
    _npy(out.stream, array)
    return tuple(name for name, _ in others)


def _write_safetensors(out: _Out) -> tuple[str, ...]:
    from safetensors import SafetensorError
    from safetensors.numpy import save

    # It takes an array's memory as it lies, so the order has to be C's.
    arrays = {name: np.asarray(array, order="C") for name, array in _named(out.rows, out.many)}
    if "__metadata__" in arrays:  # it would write this, and nobody could read it
        raise FileError(f"{out.place}: safetensors keeps the name '__metadata__' for itself; write .npz instead")
    try:
        out.stream.write(save(arrays))
    except SafetensorError as error:
        raise FileError(f"{out.place}: safetensors cannot hold this: {one_line(error)}; write .npz instead") from error
    return ()


def _write_csv(out: _Out) -> tuple[str, ...]:
    (name, array), *others = _only(out.rows).items()
    table = _as_table(name, array, out.place)
    out.stream.write(_csv_header(name, table.shape[1]).encode())
    for start in range(0, len(table), 1024):  # the numbers as text take many times their own memory
        lines = (",".join(map(repr, row)) for row in _plain(table[start : start + 1024]))
        out.stream.write("".join(f"{line}\n" for line in lines).encode())
    return tuple(name for name, _ in others)


def _write_jsonl(out: _Out) -> tuple[str, ...]:
    from lstm_onnx.terminal_text import json_text

    for record in out.rows:
        line = json_text({name: _plain(array) for name, array in record.items()}, indent=None, finite=False)
        out.stream.write(f"{line}\n".encode())
        out.stream.flush()  # whoever reads the pipe gets each record when it is there
    return ()


def _write_parquet(out: _Out) -> tuple[str, ...]:
    from .parquet import write_parquet

    write_parquet(out.stream, out.rows, out.place)
    return ()


_WRITERS: dict[str, Callable[[_Out], tuple[str, ...]]] = {
    "npz": _write_npz,
    "npy": _write_npy,
    "csv": _write_csv,
    "safetensors": _write_safetensors,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def _as_table(name: str, array: np.ndarray, place: str) -> np.ndarray:
    """`array` as (rows, columns)."""
    table = array
    if array.ndim == 1:
        table = array[:, None]
    elif array.ndim == 3 and 1 in array.shape[:2]:
        table = array[0] if array.shape[0] == 1 else array[:, 0]
    if table.ndim != 2 or table.shape[1] == 0:
        raise FileError(f"{place}: {name!r} has the shape {array.shape} and csv holds one table; write .npz instead")
    return table


def _csv_header(name: str, columns: int) -> str:
    import csv
    import io

    from .text import is_number

    # torch names values by numbers, and a header of one number would read back as a row.
    alone = columns == 1 and name.strip() != "" and not is_number(name)
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([name] if alone else [f"{name}_{i}" for i in range(columns)])
    return line.getvalue()


def _plain(array: np.ndarray) -> Any:
    """`array` as nested lists of Python's numbers, each of which prints as the shortest text that is true.

    A float32 of 0.1 is 0.10000000149011612 as a float64.  Its own shortest text, read as a float64,
    is the number that prints as 0.1.
    """
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind == "f" and array.dtype.itemsize < 8:
        array = array.astype("S32").astype(np.float64)
    return array.tolist()
