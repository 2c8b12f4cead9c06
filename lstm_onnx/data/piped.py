"""Output to a pipe, which gets no valid end after an error: a reader must not mistake part of the records for all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, BinaryIO


class Piped:
    """A stream that can be cut: what is written afterwards is dropped."""

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
    """Within the context of an archive's writer: of an error it writes no end to a pipe.

    A file is replaced only once it is complete, and needs none of this.
    """
    try:
        yield
    except BaseException:
        if isinstance(stream, Piped):
            stream.is_cut = True
        raise
