"""Opens data files and pipes for reading, with limits on the memory that one read may take."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import FileError
from .formats import HEAD, listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_LINE = 2**27
"""Maximum bytes of a line of csv or jsonl: 128 MiB, or ten million numbers, which take several times that in memory."""
LARGEST_PIPE = 2**32
"""Maximum bytes read from a pipe or stdin by formats that need all of it in memory: 4 GiB."""
WRITER_SECONDS = 10.0
"""Seconds to wait for a pipe to be opened for writing."""
_POLL_SECONDS = 0.02
_CHUNK = 2**20


@dataclass(frozen=True)
class DataStream:
    """A stream whose first bytes, `head`, were read to identify the format; `place` is its name in errors."""

    stream: BinaryIO
    head: bytes
    place: str

    def lines(self, *, keeps_all: bool) -> Iterator[bytes]:
        """Yield each line as soon as it is available.

        Args:
            keeps_all: whether the caller keeps all of them in memory, so that the total of a pipe is limited.

        Raises:
            FileError: a line, or the total of a pipe, is larger than allowed.
        """
        total_is_limited = keeps_all and not self.stream.seekable()
        # The head may end within a line, or contain several.
        rest = b"" if self.head.endswith(b"\n") else self.stream.readline(LARGEST_LINE)
        number = total = 0
        for stream in (io.BytesIO(self.head + rest), self.stream):
            while line := stream.readline(LARGEST_LINE + 1):
                number += 1
                total += len(line)
                if len(line) > LARGEST_LINE:
                    raise FileError(
                        f"{self.place}: line {number} is longer than the {LARGEST_LINE // 2**20} MiB allowed; write "
                        "it as .npz or .parquet, or as several lines"
                    )
                if total_is_limited and total > LARGEST_PIPE:
                    raise self._too_large()
                yield line

    def seekable(self) -> BinaryIO:
        """The complete content as a seekable stream, positioned at its start; a pipe is read into memory.

        Raises:
            FileError: a pipe has more than is allowed.
        """
        if self.stream.seekable():
            self.stream.seek(-len(self.head), os.SEEK_CUR)
            if self.stream.tell() == 0:
                return self.stream
            return io.BytesIO(self.stream.read())
        content = io.BytesIO(self.head)
        content.seek(0, os.SEEK_END)
        while chunk := self.stream.read(_CHUNK):
            if content.tell() + len(chunk) > LARGEST_PIPE:
                raise self._too_large()
            content.write(chunk)
        content.seek(0)
        return content

    def _too_large(self) -> FileError:
        return FileError(
            f"{self.place}: has more than the {LARGEST_PIPE // 2**30} GiB that are read from a pipe; save it to a "
            "file, and pass that"
        )


def peek(place: str, stream: BinaryIO, first: bytes = b"") -> DataStream:
    """Read the first bytes of `stream`, of which `first` were read already."""
    # At most one line is read: a line of jsonl may be shorter than HEAD, and the next one may come much later.
    head = first if first.endswith(b"\n") else first + stream.readline(HEAD - len(first))
    if not (head.startswith((b"{", b"[")) and len(head.strip()) > 1):
        while len(head) < HEAD and (more := stream.read(HEAD - len(head))):
            head += more
    if not head:
        raise FileError(f"{place}: is empty; expected data in {listing()} format")
    return DataStream(stream, head, place)


def open_to_read(path: Path) -> tuple[BinaryIO, bytes]:
    """Open a file or a pipe for reading; also return the first byte of a pipe, if it was read to detect a writer.

    Raises:
        FileError: it is a pipe that was not opened for writing within `WRITER_SECONDS`.
        OSError: it cannot be opened.
    """
    if not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("rb"), b""
    # A blocking open waits for a writer without a time limit.
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        first = _wait_for_writer(descriptor, path)
        os.set_blocking(descriptor, True)
        stack.pop_all()
    return cast("BinaryIO", os.fdopen(descriptor, "rb")), first


def _wait_for_writer(descriptor: int, path: Path) -> bytes:
    """Wait until a pipe has a writer; return its first byte, or nothing if none has been written yet."""
    end = monotonic() + WRITER_SECONDS
    while True:
        try:
            first = os.read(descriptor, 1)
        except BlockingIOError:
            return b""  # a writer that has written nothing yet
        if first:
            return first
        if monotonic() > end:
            raise FileError(
                f"{path}: is a pipe without a writer for {WRITER_SECONDS:g} s; start the program that writes to it"
            )
        sleep(_POLL_SECONDS)
