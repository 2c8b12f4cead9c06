"""Runs in the process of an engine that has a Python package: opens and runs files on request.

A message to or from it is the length of a header (4 bytes, little-endian), the header in JSON, and the bytes of arrays
one after another.  The header lists their names, dtypes and shapes in ``arrays``; its other keys are the message's
fields.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np

from ...errors import reason
from ...isolation.child import resolved
from ...isolation.limits import prepare

_MOST_TEXT = 500
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""An open file: a function from inputs by name to outputs by name.  Any exception means that the run failed."""


class Adapter(Protocol):
    """An engine; the constructor takes the number of threads, or None for its default."""

    version: str
    """Of the engine."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        """Open a file.

        Args:
            path: the file.
            outputs: the names of its outputs, in their order.
            fixed: open it again for the sizes of each run, if the engine can fix sizes; other engines ignore this.

        Any exception means that the file cannot be opened.
        """
        ...

    def reason(self, error: Exception) -> str:
        """The part of the engine's message that says what is wrong."""
        ...


def serve(parent: int, adapter_name: str, threads: int) -> None:
    """Answer the requests on stdin until it is closed.

    Args:
        parent: the process with which this one ends.
        adapter_name: ``module:class`` of the engine's `Adapter`.
        threads: the engine's number of threads; 0 for its default.
    """
    prepare(parent)
    answers = os.fdopen(os.dup(1), "wb")
    requests = os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # what a library prints to stdout must not mix with the answers
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        adapter: Adapter = resolved(adapter_name)(threads or None)
    except Exception as error:  # noqa: BLE001 - a package that is missing or broken
        write_message(answers, {"error": reason(error)}, {})
        return
    write_message(answers, {"version": adapter.version}, {})
    files: dict[int, Run] = {}
    while (message := read_message(requests)) is not None:
        fields, arrays = message
        for number in fields["forget"]:
            files.pop(number, None)
        try:
            if "path" in fields:
                files[fields["file"]] = adapter.open(fields["path"], fields["outputs"], fixed=fields["fixed"])
                write_message(answers, {}, {})
            else:
                write_message(answers, {}, files[fields["file"]](arrays))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises is an answer
            write_message(answers, {"error": " ".join(adapter.reason(error).split())[:_MOST_TEXT]}, {})


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
    """The next message's fields and arrays, in their order; None if the stream has ended.

    Raises:
        ValueError: it is not a message.
    """
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    fields = json.loads(stream.read(_LENGTH.unpack(length)[0]))
    arrays = {}
    for item in fields.pop("arrays"):
        dtype, shape = np.dtype(item["dtype"]), tuple(item["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        content = stream.read(size)
        if len(content) < size:
            return None
        arrays[item["name"]] = np.frombuffer(bytearray(content), dtype).reshape(shape)
    return fields, arrays
