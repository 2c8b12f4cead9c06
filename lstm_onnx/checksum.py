"""Whether a file is, byte for byte, one that lstm-onnx wrote.

Among the metadata of a file from lstm-onnx is the CRC-32 of all its bytes, taken while that entry held zeros.
What another tool has written since, or what was damaged, does not fit it.  It is no signature: who wants to
deceive can compute it too, and then gets the file opened as one of ours, in the caller's own process.
"""

from __future__ import annotations

import os
import zlib

KEY = "lstm_onnx.checksum"
UNKNOWN = '"00000000"'
"""The entry's value, which is JSON as all of ours, before the bytes are known."""
_MARK = bytes([10, len(KEY)]) + KEY.encode() + bytes([18, len(UNKNOWN)]) + b'"'
"""What stands before the eight digits: a StringStringEntryProto of key (1) and value (2)."""
_ZEROS = UNKNOWN.strip('"').encode()
_SEARCHED = 2**24
"""Bytes from the end in which the metadata is looked for."""


def with_checksum(content: bytes) -> bytes:
    """A serialized model that has the entry `KEY` with the value `UNKNOWN`, with its checksum there."""
    at = content.rindex(_MARK) + len(_MARK)
    return b"".join((content[:at], _digits(zlib.crc32(content)), content[at + len(_ZEROS) :]))


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Whether lstm-onnx wrote the file, and nothing has changed it; False for what cannot be read.

    Weights in a file beside it are not looked at.
    """
    import mmap

    try:
        if not os.path.isfile(path):  # noqa: PTH113 - without pathlib, which is slow to import
            return False
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.rfind(_MARK, max(0, len(content) - _SEARCHED)) + len(_MARK)
            if at < len(_MARK):
                return False
            end = at + len(_ZEROS)
            with memoryview(content) as view, view[:at] as before, view[end:] as behind:
                crc = zlib.crc32(behind, zlib.crc32(_ZEROS, zlib.crc32(before)))
            return content[at:end] == _digits(crc)
    except (OSError, ValueError):
        return False


def _digits(crc: int) -> bytes:
    return f"{crc:08x}".encode()
