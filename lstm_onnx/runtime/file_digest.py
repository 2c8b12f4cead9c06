"""Identifies a model's file by a digest of its bytes and of those of its external data."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator

from ..atomic_io import require_readable
from ..checksum import is_intact
from ..errors import FileError

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])")
"""An entry of a tensor's external data: a StringStringEntryProto with key (1) and the length of its value (2)."""
_CHUNK = 2**20
_LONGEST_NAME = 2**12
_LONGEST_ENTRY = _LONGEST_NAME + 20
"""The most bytes of a file name, and of an entry with it."""


def file_digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a model's file, and of the files in its folder that hold its weights, in hexadecimal.

    Raises:
        FileError: a file cannot be read.
    """
    total = hashlib.sha256()
    names: set[bytes] = set()
    for chunk, found in _chunks(path):
        total.update(chunk)
        names |= found
    try:
        for name, file in _existing(path, names).items():
            with open(file, "rb") as stream:
                total.update(b"%d:%s" % (len(name), name) + hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise FileError(f"cannot be read: {error}", path=path) from error
    return total.hexdigest()


def files_beside(path: str | os.PathLike[str]) -> list[str]:
    """The files in the folder of a model's file that hold its weights (FileError where it cannot be read)."""
    names = {name for _, found in _chunks(path) for name in found}
    return [os.fsdecode(file) for file in _existing(path, names).values()]


def weights_of_others(path: str | os.PathLike[str]) -> dict[str, bytes]:
    """The content of the files in the folder of a model's file that hold its weights, by their names in it.

    ONNX Runtime maps them into memory: where another program writes into one of them, as ``cp`` does, an open model
    would give other results, or end the process.  lstm-onnx names its own by digest, and never writes into them.

    Raises:
        FileError: a file cannot be read.
    """
    names = {name for _, found in _chunks(path) for name in found}
    if not names or is_intact(path):
        return {}
    try:
        # Absolute names, and what leads out of the folder, as a link may, are left to ONNX Runtime, which refuses them.
        folder = os.path.join(os.fsencode(os.path.dirname(os.path.realpath(path))), b"")  # noqa: PTH118, PTH120
        found = _existing(path, names).items()
        files = {name: os.path.realpath(file) for name, file in found if not os.path.isabs(name)}  # noqa: PTH117
        return {os.fsdecode(name): _content(file) for name, file in files.items() if file.startswith(folder)}
    except OSError as error:
        raise FileError(f"cannot be read: {error}", path=path) from error


def _chunks(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, set[bytes]]]:
    """The bytes of a file, and the names of external data that end in each chunk.

    They are read, not mapped into memory: if another program truncated a mapped file, this process would crash.
    """
    require_readable(path, "an .onnx file")
    before = b""
    try:
        with open(path, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                content = before + chunk
                yield chunk, {name for match in _LOCATION.finditer(content) if (name := _value(content, match))}
                before = content[-_LONGEST_ENTRY:]
    except OSError as error:
        raise FileError(f"cannot be read: {error}", path=path) from error


def _content(file: bytes) -> bytes:
    with open(file, "rb") as stream:
        return stream.read()


def _value(content: bytes, match: re.Match[bytes]) -> bytes:
    """The value of an entry; none where it does not end in `content`."""
    length = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(match[1]))
    end = match.end() + length
    return content[match.end() : end] if length <= _LONGEST_NAME and end <= len(content) else b""


def _existing(path: str | os.PathLike[str], names: set[bytes]) -> dict[bytes, bytes]:
    """The files of these names.  Others only look like an entry; ONNX Runtime itself refuses a missing file."""
    folder = os.fsencode(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - pathlib is slow to import
    files = {name: os.path.join(folder, name) for name in sorted(names) if b"\0" not in name}  # noqa: PTH118
    return {name: file for name, file in files.items() if os.path.isfile(file)}  # noqa: PTH113
