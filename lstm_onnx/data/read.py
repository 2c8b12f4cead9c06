"""Reading: which file, which format, and then the format's own reader."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from lstm_onnx.atomic_io import readable_file, require_path
from lstm_onnx.errors import FileError

from .formats import TABLES, TYPED, Record, Records, format_of, known_format, listing, readable, sniff
from .opened import Opened, opened_to_read, peeked

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

    The first record is read before this returns, so that a file of the wrong kind is refused here
    and not later.

    Args:
        source: a path, or ``-`` for the standard input.
        format: one of `FORMATS`; left out, the path's suffix says it, or for ``-`` the content.
        columns: which columns to take, in this order, of a csv or parquet file: names of the
            header, or numbers from 1 where a csv table has no header.
        name: the name of the array in a file that gives it none: npy, a table, a bare jsonl list.
        stdin: what ``-`` reads; ``sys.stdin.buffer`` where it is left out.

    Returns:
        The records.  A table (csv, parquet without list columns) is one record ``{name: (time,
        features)}``: float64 from csv, the columns' common dtype from parquet.  jsonl gives float64,
        and int64 for arrays of integers alone.  Other arrays have the shapes and dtypes of the
        file, in this machine's byte order, bfloat16 as float32.

    Raises:
        FileError: there is no such file, it is a device, or it is not what its format says, or larger
            than is allowed; one line with the place in the file and what would mend it.
        MissingDependencyError: the file is parquet and pyarrow is not installed.
    """
    require_path(source, f"data in {listing()} format")
    place = os.fspath(source)
    if format is not None:
        known_format(place, format)
    with contextlib.ExitStack() as stack:
        stack.enter_context(readable("stdin" if place == "-" else place))
        if place == "-":
            place = "stdin"
            opened = peeked(place, _standard_input() if stdin is None else stdin)
            format = format or sniff(opened.head)
        else:
            format = format or format_of(place)
            path = readable_file(source, f"data in {listing((format,))} format", pipes=True)
            stream, taken = opened_to_read(path)
            opened = peeked(place, stack.enter_context(stream), taken)
        if columns is not None:
            _check_columns(place, format, columns)
        _check_content(place, format, opened.head)
        many, count, records = _reader(place, format, opened, columns, name)
        rows = _until_done(records, stack.pop_all())
        first = next(rows, None)
    if first is None:
        raise FileError(f"{place}: holds no records; give it at least one")
    if not many:
        rows.close()
        return Records(format, False, iter((first,)), format in TYPED, 1)
    return Records(format, True, _rejoined(first, rows), format in TYPED, count)


def _until_done(records: Iterator[Record], stack: contextlib.ExitStack) -> Generator[Record, None, None]:
    """`records`, and at their end, or when nobody wants more of them, the file is closed."""
    with stack:
        yield from records


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # under pythonw, or with the descriptor closed
        raise FileError("stdin: is closed; name a file instead of -")
    return sys.stdin.buffer


def _check_columns(place: str, format: str, columns: Sequence[str]) -> None:
    if format not in TABLES:
        raise FileError(f"{place}: --columns goes with csv and parquet tables only, and this is {format}; leave it out")
    if not columns:
        raise FileError(f"{place}: --columns names no column; name one, or leave it out to take all")


def _check_content(place: str, format: str, head: bytes) -> None:
    """Refuse a file of another format with the name of that format, which no later error could say."""
    found = sniff(head)
    if found == format or (format in _TEXT and found in _TEXT):
        return
    if found not in _TEXT:
        raise FileError(f"{place}: is not {format}, its content is {found}; name the format {found}")
    looks = "text" if head.isascii() and b"\0" not in head else "something else, or is cut short"
    raise FileError(f"{place}: is not {format}, its content is {looks}; make it anew, or name its true format")


def _reader(
    place: str, format: str, opened: Opened, columns: Sequence[str] | None, name: str
) -> tuple[bool, int | None, Iterator[Record]]:
    """Whether there are many records, how many if known, and the records."""
    # Each reader is a module that loads only what its format needs.
    if format == "parquet":
        from .parquet import read_parquet

        return read_parquet(opened.seekable(), place, columns, name)
    if format in _TEXT:
        from .text import read_csv, read_jsonl

        if format == "jsonl":
            return True, None, read_jsonl(opened.lines(all_held=False), place, name)
        return False, 1, iter((read_csv(opened.lines(all_held=True), place, columns, name),))
    from .arrays import read_npy, read_npz, read_safetensors

    stream = opened.seekable()
    if format == "npy":
        return False, 1, iter(({name: read_npy(stream, place)},))
    record = read_npz(stream, place) if format == "npz" else read_safetensors(stream, place)
    return False, 1, iter((record,))


def _rejoined(first: Record, rows: Iterator[Record]) -> Iterator[Record]:
    """A generator and not itertools.chain: closing it closes `rows`, and so the file."""
    yield first
    yield from rows
