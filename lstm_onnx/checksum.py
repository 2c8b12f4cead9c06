"""Whether a file is, byte for byte, one that lstm-onnx wrote.

The metadata of a file from lstm-onnx contains the CRC-32 of all its bytes, computed while that entry was zeros.  It
does not match if another tool has changed the file, or if it is damaged.  It is not a signature: an attacker can
compute it as well, and the file is then opened like one of ours, in the caller's process.
"""

from __future__ import annotations

import os
import zlib

KEY = "lstm_onnx.checksum"
UNKNOWN = '"00000000"'
"""The entry's value before the checksum is known; JSON, as all our metadata."""
_MARK = bytes([10, len(KEY)]) + KEY.encode() + bytes([18, len(UNKNOWN)]) + b'"'
"""The bytes before the eight digits: a StringStringEntryProto with key (1) and value (2)."""
_ZEROS = UNKNOWN.strip('"').encode()
_SEARCHED = 2**24
"""How many bytes from the end are searched for the metadata."""
_CHUNK = 2**20


def with_checksum(content: bytes, before: int = 0) -> bytes:
    """Insert the checksum into a serialized model that has the entry `KEY` with the value `UNKNOWN`.

    Args:
        content: the model, or the end of it.
        before: the CRC-32 of what comes before `content`.
    """
    at = content.rindex(_MARK) + len(_MARK)
    return b"".join((content[:at], _digits(zlib.crc32(content, before)), content[at + len(_ZEROS) :]))


def is_intact(path: str | os.PathLike[str]) -> bool:
    """Whether lstm-onnx wrote the file, and it was not changed since; False for an unreadable file.

    External data is not included.
    """
    try:
        if not os.path.isfile(path):  # noqa: PTH113 - without pathlib, which is slow to import
            return False
        # Read, and not mapped into memory: a file that another program cuts short meanwhile would end this process.
        with open(path, "rb") as stream:
            start = max(0, os.fstat(stream.fileno()).st_size - _SEARCHED)
            crc = 0
            while left := start - stream.tell():
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    return False
                crc = zlib.crc32(chunk, crc)
            content = stream.read()
        at = content.rfind(_MARK) + len(_MARK)
        if at < len(_MARK):
            return False
        end = at + len(_ZEROS)
        with memoryview(content) as view, view[:at] as before, view[end:] as behind:
            crc = zlib.crc32(behind, zlib.crc32(_ZEROS, zlib.crc32(before, crc)))
        return content[at:end] == _digits(crc)
    except (OSError, ValueError):
        return False


def _digits(crc: int) -> bytes:
    return f"{crc:08x}".encode()
