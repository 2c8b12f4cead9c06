"""Messages between this process and that of an engine: a header in JSON with the arrays' bytes behind it.

A message is the header's length (4 bytes, little-endian), the header, and the arrays one after another as they lie in
memory.  The header lists their names, dtypes and shapes in ``arrays``; its other keys are the message's own.  Nothing
but numpy is imported, since an engine's process starts with this.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

_LENGTH = struct.Struct("<I")


def write_message(stream: IO[bytes], fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write one message and flush it."""
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    listed = [
        {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)} for name, array in contiguous.items()
    ]
    header = json.dumps({**fields, "arrays": listed}).encode()
    stream.write(b"".join([_LENGTH.pack(len(header)), header, *(array.tobytes() for array in contiguous.values())]))
    stream.flush()


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The next message's fields and arrays, in their order; None where the stream has ended.

    Raises:
        ValueError: it is not a message.
    """
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    header = stream.read(_LENGTH.unpack(length)[0])
    fields = json.loads(header)
    arrays = {}
    for item in fields.pop("arrays"):
        dtype, shape = np.dtype(item["dtype"]), tuple(item["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        content = stream.read(size)
        if len(content) < size:
            return None
        arrays[item["name"]] = np.frombuffer(bytearray(content), dtype).reshape(shape)
    return fields, arrays
