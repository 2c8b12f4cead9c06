"""What tells the file of one model from that of another: a digest of its bytes and those of its external data."""

from __future__ import annotations

import hashlib
import mmap
import os
import re

from ..atomic_io import require_readable
from ..errors import FileError

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")
"""An entry of a tensor's external data: a StringStringEntryProto with key (1) and the length of its value (2)."""
_CHUNK = 2**20


def file_digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a model's file, and of the files in its folder that hold its weights, in hexadecimal.

    Raises:
        FileError: a file cannot be read.
    """
    require_readable(path, "an .onnx file")
    total = hashlib.sha256()
    try:
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for start in range(0, len(content), _CHUNK):
                total.update(content[start : start + _CHUNK])
            names = {_value(content, match) for match in _LOCATION.finditer(content)}
        folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - pathlib is slow to import
        for name in sorted(names):
            beside = os.path.join(os.fsencode(folder), name)  # noqa: PTH118
            if b"\0" in name or not os.path.isfile(beside):  # noqa: PTH113
                continue  # bytes that only look like an entry; ONNX Runtime refuses a file that it misses
            with open(beside, "rb") as stream:
                total.update(b"%d:%s" % (len(name), name) + hashlib.file_digest(stream, "sha256").digest())
    except (OSError, ValueError) as error:
        raise FileError(f"cannot be read: {error}", path=path) from error
    return total.hexdigest()


def _value(content: mmap.mmap, match: re.Match[bytes]) -> bytes:
    length = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(match[1]))
    return content[match.end() : match.end() + min(length, _CHUNK)]
