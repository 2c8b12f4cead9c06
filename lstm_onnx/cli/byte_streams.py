"""Byte streams below and above text streams, none of which loses part of what is written without an error."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, TextIO


class _WholeWrites(io.FileIO):
    """A file descriptor that waits until it can be written to, even if it is in non-blocking mode."""

    def write(self, content: Any) -> int:
        """Write some or all of the content; never return None, as io.FileIO does if writing would block."""
        while (count := super().write(content)) is None:
            import select

            select.select([], [self], [])
        return count


def opened(stream: TextIO | None, descriptor: int) -> TextIO:
    """`stream`, or a new stream for `descriptor` if Python found it closed, or if `stream` may lose what is written.

    With PYTHONUNBUFFERED, Python writes once and drops what the system did not accept, such as what no longer fits
    onto a disk; and a non-blocking pipe, which another program may have made, accepts only as much as has room in it.
    """
    if stream is None:
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    try:
        own = isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
        if not own or not (isinstance(stream.buffer, io.FileIO) or _never_blocks(descriptor)):
            return stream
        stream.flush()
        buffer = io.BufferedWriter(_WholeWrites(descriptor, "w", closefd=False))
    except (OSError, ValueError):
        return stream
    return io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True)


def _never_blocks(descriptor: int) -> bool:
    return os.name == "posix" and not os.get_blocking(descriptor)


class BorrowedStream:
    """A stream above one that others own: when it is garbage-collected, nothing is written.

    `io` would flush it then, at an arbitrary time, and with an error that no caller receives.
    """

    def __del__(self) -> None:
        """Nothing."""


class DecodedBytes(BorrowedStream, io.RawIOBase):
    """A byte stream above a text stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, content: Any) -> int:
        """Write bytes as text."""
        self._stream.write(bytes(content).decode("utf-8", "backslashreplace"))
        return memoryview(content).nbytes

    def flush(self) -> None:
        """Flush the underlying stream."""
        self._stream.flush()


class ByteStream(BorrowedStream, io.BufferedIOBase):
    """Bytes for stdout.  After an error that is `tolerated`, nothing more is written."""

    def __init__(self, out: Any, *, tolerated: tuple[type[Exception], ...]) -> None:
        self._out = out
        self._tolerated = tolerated

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, content: Any) -> int:
        """Write bytes.

        Raises:
            OSError: they cannot be written, and the error is not tolerated.
        """
        self._attempt(lambda: self._out.raw.write(content))
        return memoryview(content).nbytes

    def flush(self) -> None:
        """Flush the underlying stream.

        Raises:
            OSError: see `write`.
        """
        self._attempt(lambda: self._out.raw.flush())

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._out.lost is not None:
            return
        try:
            action()
        except (OSError, ValueError) as error:
            self._out.lose(error)
            if not isinstance(error, self._tolerated):
                self._out.raised = True
                raise


class FileBytes(ByteStream):
    """As `ByteStream`, for a file, which zip can seek in to write sizes."""

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to another position."""
        return int(self._out.raw.seek(offset, whence))

    def tell(self) -> int:
        """The place."""
        return int(self._out.raw.tell())

    def fileno(self) -> int:
        """The file descriptor of the underlying stream."""
        return int(self._out.fileno())
