"""Opens a data file, determines its format, and calls the reader for that format."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..atomic_io import readable_file, require_path
from ..errors import FileError
from .data_stream import DataStream, open_to_read, peek
from .formats import TABLES, TYPED, Record, Records, format_of, known_format, listing, readable, sniff

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

_TEXT = ("csv", "jsonl")


def read(
    source: str | os.PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    name: str = "input",
    stdin: BinaryIO | None = None,
) -> Records:
    """Read the arrays of a data file.

    The first record is read before this returns, so a file in the wrong format is refused at once.

    Args:
        source: a path, or ``-`` for stdin.
        format: one of `FORMATS`; by default from the suffix of the path, or for ``-`` from the content.
        columns: the columns to read from a csv or parquet file, in this order: names of the header, or numbers from
            1 if a csv table has no header.
        name: the name of an array that has none in the file: in npy, a table or a bare jsonl list.
        stdin: the stream for ``-``; ``sys.stdin.buffer`` by default.

    Returns:
        The records.  A table (csv, parquet without list columns) is one record ``{name: (time, features)}``:
        float64 from csv, the common dtype of the columns from parquet.  From jsonl, arrays with only integers are
        int64, others float64.  Other arrays have the shapes and dtypes of the file, in native byte order; bfloat16
        becomes float32.

    Raises:
        FileError: the file does not exist, is a device, is invalid or larger than allowed; the message has the
            place in the file and how to fix it.
        MissingDependencyError: the format is parquet and pyarrow is not installed.
    """
    require_path(source, f"data in {listing()} format")
    place = os.fspath(source)
    if format is not None:
        known_format(place, format)
    with contextlib.ExitStack() as stack:
        stack.enter_context(readable("stdin" if place == "-" else place))
        if place == "-":
            place = "stdin"
            if stdin is None and sys.stdin is None:  # under pythonw, or with the descriptor closed
                raise FileError("stdin: is closed; pass a file instead of -")
            stream = peek(place, stdin or sys.stdin.buffer)
            format = format or sniff(stream.head)
        else:
            if Path(place).is_dir():
                raise FileError(f"{place}: is a directory; expected a file of data in {listing()} format")
            format = format or format_of(place)
            path = readable_file(source, f"data in {listing((format,))} format", pipes=True)
            file, first = open_to_read(path)
            stream = peek(place, stack.enter_context(file), first)
        if columns is not None:
            _check_columns(place, format, columns)
        _check_content(place, format, stream.head)
        many, count, records = _reader(place, format, stream, columns, name)
        rows = _closing(records, stack.pop_all())
        record = next(rows, None)
    if record is None:
        raise FileError(f"{place}: has no records; write at least one")
    if not many:
        rows.close()
        return Records(format, False, iter((record,)), format in TYPED, 1)
    return Records(format, True, _chain(record, rows), format in TYPED, count)


def _closing(records: Iterator[Record], stack: contextlib.ExitStack) -> Generator[Record, None, None]:
    """`records`; the file is closed at their end, or when this generator is closed."""
    with stack:
        yield from records


def _check_columns(place: str, format: str, columns: Sequence[str]) -> None:
    if format not in TABLES:
        raise FileError(f"{place}: --columns is only for csv and parquet, but this is {format}; leave it out")
    if not columns:
        raise FileError(f"{place}: --columns names no column; name one, or leave it out to read all")


def _check_content(place: str, format: str, head: bytes) -> None:
    """Refuse a file in another format, and name that format."""
    actual = sniff(head)
    if actual == format or (format in _TEXT and actual in _TEXT):
        return
    if actual not in _TEXT:
        raise FileError(f"{place}: is not {format}: its content is {actual}; use the format {actual}")
    text = all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head)
    content = "text" if text else "in no known format, or truncated"
    raise FileError(f"{place}: is not {format}: its content is {content}; write it again, or use its actual format")


def _reader(
    place: str, format: str, stream: DataStream, columns: Sequence[str] | None, name: str
) -> tuple[bool, int | None, Iterator[Record]]:
    """Whether the file has many records, their number if known, and the records."""
    # Each module imports only what its formats need.
    if format == "parquet":
        from .parquet import read_parquet

        return read_parquet(stream.seekable(), place, columns, name)
    if format in _TEXT:
        from .text import read_csv, read_jsonl

        if format == "jsonl":
            return True, None, read_jsonl(stream.lines(keeps_all=False), place, name)
        return False, 1, iter((read_csv(stream.lines(keeps_all=True), place, columns, name),))
    from .arrays import read_npy, read_npz, read_safetensors

    file = stream.seekable()
    if format == "npy":
        return False, 1, iter(({name: read_npy(file, place)},))
    record = read_npz(file, place) if format == "npz" else read_safetensors(file, place)
    return False, 1, iter((record,))


def _chain(first: Record, rows: Iterator[Record]) -> Iterator[Record]:
    """As itertools.chain, but closing it closes `rows`, and so the file."""
    yield first
    yield from rows
