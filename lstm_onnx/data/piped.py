"""Cuts off output to a pipe after an error, so that its reader does not mistake part of the records for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO


class Piped:
    """A stream that can be cut off: what is written afterwards is dropped."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.is_cut = False

    def write(self, content: Any) -> int:
        """Write, and return the number of bytes."""
        return memoryview(content).nbytes if self.is_cut else self._stream.write(content)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)


@contextlib.contextmanager
def cut_on_error(stream: object) -> Iterator[None]:
    """A context, within that of an archive's writer, that keeps it from writing an end to a pipe after an error.

    A file does not need this: it is replaced only once it is complete.
    """
    try:
        yield
    except BaseException:
        if isinstance(stream, Piped):
            stream.is_cut = True
        raise
