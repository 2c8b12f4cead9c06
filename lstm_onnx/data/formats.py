"""Defines the formats, records and element types that the readers and writers share."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FileError, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

FORMATS: tuple[str, ...] = ("npz", "npy", "csv", "safetensors", "jsonl", "parquet")
"""All formats; the name is also the suffix."""

TABLES: tuple[str, ...] = ("csv", "parquet")
"""Formats with columns that can be selected."""
TYPED: tuple[str, ...] = ("npz", "npy", "safetensors", "parquet")
"""Formats that store dtypes."""
SINGLE: tuple[str, ...] = ("npy", "csv")
"""Formats that store a single array."""

HEAD = 9
"""The number of leading bytes that identify the format."""
_LARGEST_HEADER = 100_000_000  # the bound of the safetensors library on its JSON header

Record = dict[str, np.ndarray]
"""Arrays by name: ``input``, ``h0``, ``c0``, ``lengths``, or the input names of any model."""


class PlacedRecord(Record):
    """A record that knows its place in the file, such as "line 4"."""

    def __init__(self, arrays: Record, place: str) -> None:
        super().__init__(arrays)
        self.place = place


def place_of(record: Record, index: int) -> str:
    """The place of a record in its file, for messages: its line or row, or its number from 1 where that is unknown."""
    return record.place if isinstance(record, PlacedRecord) else f"record {index + 1}"


@dataclass(frozen=True)
class Records:
    """The content of a data file; a context manager that closes the file.

    Attributes:
        format: one of `FORMATS`.
        many: True for a file of one record per sequence (jsonl, parquet with list columns); False for a file
            with exactly one record.
        rows: an iterator of the records, which are read as needed.  May raise FileError, as `read` does.
        typed: whether the format stores dtypes, and not just numbers as text (csv, jsonl).
        count: the number of records if it is known without reading them, else None.
    """

    format: str
    many: bool
    rows: Iterator[Record]
    typed: bool
    count: int | None

    @property
    def is_table(self) -> bool:
        """Whether the record is a table, one row per time step."""
        return self.format in TABLES and not self.many

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; `rows` ends."""
        close = getattr(self.rows, "close", None)
        if close is not None:
            close()


def listing(formats: tuple[str, ...] = FORMATS) -> str:
    """`formats` as suffixes, for a sentence: ``.npz, .npy or .csv``."""
    *others, last = (f".{name}" for name in formats)
    return f"{', '.join(others)} or {last}" if others else last


def format_of(path: str) -> str:
    """The format of `path` by its suffix, whose case does not matter.

    Raises:
        FileError: `path` has no suffix or an unknown one; the message lists the known ones.
    """
    suffix = os.path.splitext(path)[1].lower()[1:]  # noqa: PTH122  (no need for a Path)
    if suffix not in FORMATS:
        problem = f"the suffix .{suffix} is unknown" if suffix else "the name has no suffix"
        raise FileError(f"{path}: {problem}; end the name in {listing()}")
    return suffix


def known_format(place: str, format: str) -> str:
    """`format`.

    Raises:
        FileError: it is not one of `FORMATS`; the message lists them.
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise FileError(f"{place}: the format {shown(format)} is unknown; choose one of {', '.join(FORMATS)}")
    return format


def sniff(head: bytes) -> str:
    """The format of a file by `head`, its first `HEAD` bytes (fewer if the file is shorter)."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # the latter is an empty zip file
        return "npz"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PAR1"):
        return "parquet"
    # Before jsonl: a header of 123 bytes starts with "{" in the file.  No text has such a length.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
        return "jsonl"
    return "csv"


def is_numeric(dtype: np.dtype) -> bool:
    """Whether every format can store `dtype`: booleans, integers, and floats of at most 64 bits."""
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8)


def native(array: np.ndarray) -> np.ndarray:
    """`array` in native byte order, the only one that ONNX Runtime accepts."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@contextlib.contextmanager
def readable(place: str) -> Iterator[None]:
    """Map errors of the operating system while reading `place` to FileError."""
    try:
        yield
    except MemoryError as error:
        raise FileError(f"{place}: needs more memory than is available; split it into smaller files") from error
    except OSError as error:
        raise FileError(f"{place}: cannot be read: {error.strerror or error}") from error


def enumerated(names: Sequence[str]) -> str:
    """The first 20 names on one line, as in "a, b and 3 more"."""
    shown = ", ".join(" ".join(name.split()) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def listed_columns(names: Sequence[str]) -> str:
    """As `enumerated`, each as an option writes it: a name with a comma in double quotes."""
    return enumerated(['"' + name.replace('"', '""') + '"' if "," in name else name for name in names])
