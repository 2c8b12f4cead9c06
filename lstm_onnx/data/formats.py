"""What the readers and the writers agree on: the formats, the records, the element types."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lstm_onnx.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

FORMATS: tuple[str, ...] = ("npz", "npy", "csv", "safetensors", "jsonl", "parquet")
"""Every format, by the name that is also its suffix."""

TABLES: tuple[str, ...] = ("csv", "parquet")
"""The formats that have columns to pick from."""
TYPED: tuple[str, ...] = ("npz", "npy", "safetensors", "parquet")
"""The formats that keep an array's dtype."""
SINGLE: tuple[str, ...] = ("npy", "csv")
"""The formats that hold one array and no more."""

HEAD = 9
"""The number of leading bytes that tells the formats apart."""
_LARGEST_HEADER = 100_000_000  # safetensors' own bound on its JSON header

Record = dict[str, np.ndarray]
"""Arrays by name: ``input``, ``h0``, ``c0``, ``lengths``, or whatever names a model's inputs have."""


@dataclass(frozen=True)
class Records:
    """What a data file holds; a context manager that closes it, for those who may not go through all of it.

    Attributes:
        format: one of `FORMATS`.
        many: True where the file holds one record a sequence (jsonl, parquet with list columns);
            False where it holds exactly one record.
        rows: the records, read as they are asked for; can be gone through once.  Reading on may
            raise FileError, as `read` does.
        typed: whether the format carries dtypes, or only numbers as text (csv, jsonl).
        count: the number of records where that is known without reading them, else None.
    """

    format: str
    many: bool
    rows: Iterator[Record]
    typed: bool
    count: int | None

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; there are no further records."""
        close = getattr(self.rows, "close", None)
        if close is not None:
            close()


def listing(formats: tuple[str, ...] = FORMATS) -> str:
    """`formats` as suffixes in a sentence: ``.npz, .npy or .csv``."""
    *most, last = (f".{name}" for name in formats)
    return f"{', '.join(most)} or {last}" if most else last


def format_of(path: str) -> str:
    """The format that the suffix of `path` names, upper or lower case.

    Raises:
        FileError: it has no suffix or an unknown one; the message lists what is allowed.
    """
    suffix = os.path.splitext(path)[1].lower()[1:]  # noqa: PTH122  (a str in, and no need of a Path)
    if suffix not in FORMATS:
        found = f"the suffix .{suffix} is not known" if suffix else "the name has no suffix to tell the format"
        raise FileError(f"{path}: {found}; name a file that ends in {listing()}")
    return suffix


def known_format(place: str, format: str) -> str:
    """`format`, once it is known to be one of `FORMATS`.

    Raises:
        FileError: it is not; the message lists what is allowed.
    """
    if format not in FORMATS:
        raise FileError(f"{place}: there is no format {format!r}; choose one of {', '.join(FORMATS)}")
    return format


def sniff(head: bytes) -> str:
    """The format of a file that starts with `head`, its first `HEAD` bytes (fewer in a shorter file)."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # the second is a zip with nothing in it
        return "npz"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PAR1"):
        return "parquet"
    # Before jsonl: a header of 123 bytes has "{" for its first byte.  Text has no such length.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
        return "jsonl"
    return "csv"


def is_numeric(dtype: np.dtype) -> bool:
    """Whether every format can hold `dtype`: booleans, integers, and floats of at most 64 bits."""
    return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8)


def native(array: np.ndarray) -> np.ndarray:
    """`array` in this machine's byte order, the only one that ONNX Runtime takes."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


@contextlib.contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn what the operating system says about reading `place` into a FileError."""
    try:
        yield
    except MemoryError as error:
        raise FileError(f"{place}: needs more memory than there is; split it into smaller files") from error
    except OSError as error:
        raise FileError(f"{place}: cannot be read: {error.strerror or error}") from error


def one_line(error: BaseException) -> str:
    """What a library said, in one line of a bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def enumerated(names: Sequence[str]) -> str:
    """Names out of a file in one line of a bearable length, whatever is in them."""
    shown = ", ".join(" ".join(name.split()) for name in names[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"
