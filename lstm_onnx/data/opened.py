"""Data files and pipes opened for reading, with bounds on what one read may take into memory."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, BinaryIO, cast

from lstm_onnx.errors import FileError

from .formats import HEAD, listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_LINE = 2**27
"""Bytes of one line of csv or jsonl: 128 MiB, some ten million numbers, which take several times as much parsed."""
LARGEST_PIPE = 2**32
"""Bytes that are read from a pipe, or from the standard input, where all of it has to be held: 4 GiB."""
WRITER_SECONDS = 10.0
"""How long a pipe that nobody has opened for writing is waited for."""
_POLL_SECONDS = 0.02
_CHUNK = 2**20


@dataclass(frozen=True)
class Opened:
    """A stream of which the first bytes were taken off to look at; `place` is what it is called in errors."""

    stream: BinaryIO
    head: bytes
    place: str

    def lines(self, *, all_held: bool) -> Iterator[bytes]:
        """Every line, as it comes: a pipe's reader gets each line when the writer has written it.

        Args:
            all_held: whether what is made of the lines is kept, so that a pipe has to end at some time.

        Raises:
            FileError: a line, or all that a pipe gives, is larger than is allowed.
        """
        endless = all_held and not self.stream.seekable()
        # The head may end within a line, or hold several.
        rest = b"" if self.head.endswith(b"\n") else self.stream.readline(LARGEST_LINE)
        number = total = 0
        for stream in (io.BytesIO(self.head + rest), self.stream):
            while line := stream.readline(LARGEST_LINE + 1):
                number += 1
                total += len(line)
                if len(line) > LARGEST_LINE:
                    raise FileError(
                        f"{self.place}: line {number} is longer than the {LARGEST_LINE // 2**20} MiB allowed; write "
                        "what it holds as .npz or .parquet, or in several lines"
                    )
                if endless and total > LARGEST_PIPE:
                    raise self._too_large()
                yield line

    def seekable(self) -> BinaryIO:
        """The whole as a stream that can be sought in, at its start; a pipe is read into memory.

        Raises:
            FileError: a pipe gives more than is allowed.
        """
        if self.stream.seekable():
            self.stream.seek(-len(self.head), os.SEEK_CUR)
            if self.stream.tell() == 0:
                return self.stream
            return io.BytesIO(self.stream.read())
        whole = io.BytesIO(self.head)
        whole.seek(0, os.SEEK_END)
        while chunk := self.stream.read(_CHUNK):
            if whole.tell() + len(chunk) > LARGEST_PIPE:
                raise self._too_large()
            whole.write(chunk)
        whole.seek(0)
        return whole

    def _too_large(self) -> FileError:
        return FileError(
            f"{self.place}: gives more than the {LARGEST_PIPE // 2**30} GiB that are read from a pipe; save it to a "
            "file, and name that"
        )


def peeked(place: str, stream: BinaryIO, first: bytes = b"") -> Opened:
    """`stream` with its first bytes looked at, of which `first` were taken off already."""
    # A line of jsonl may be shorter than HEAD and the next one a long time in coming, so the look
    # ends with the line; only what cannot be such a line is read on.
    head = first if first.endswith(b"\n") else first + stream.readline(HEAD - len(first))
    if not (head.startswith((b"{", b"[")) and len(head.strip()) > 1):
        while len(head) < HEAD and (more := stream.read(HEAD - len(head))):
            head += more
    if not head:
        raise FileError(f"{place}: is empty; expected data in {listing()} format")
    return Opened(stream, head, place)


def opened_to_read(path: Path) -> tuple[BinaryIO, bytes]:
    """A file or a pipe for reading, and what had to be taken off a pipe to know that somebody writes to it.

    Raises:
        FileError: it is a pipe, and nobody has opened it for writing in `WRITER_SECONDS`.
        OSError: it cannot be opened.
    """
    if not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("rb"), b""
    # Opened in the usual way, a pipe without a writer blocks for ever.
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        first = _from_writer(descriptor, path)
        os.set_blocking(descriptor, True)
        stack.pop_all()
    return cast("BinaryIO", os.fdopen(descriptor, "rb")), first


def _from_writer(descriptor: int, path: Path) -> bytes:
    """The first byte of a pipe, or nothing as soon as it is known that it has a writer."""
    end = monotonic() + WRITER_SECONDS
    while True:
        try:
            first = os.read(descriptor, 1)
        except BlockingIOError:
            return b""  # there is a writer, and it has written nothing yet
        if first:
            return first
        if monotonic() > end:
            raise FileError(
                f"{path}: is a pipe that nobody writes to, for {WRITER_SECONDS:g} s now; start what writes to it first"
            )
        sleep(_POLL_SECONDS)
