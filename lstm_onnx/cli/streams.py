"""What a command prints: safe to look at, and with no say in how the command ends.

A reader may leave (``| head``), stdout or stderr may be closed, their disk may be full.  None of it is an error
of the command: its exit code is that of its result.  What cannot be printed any more is dropped, and where that is
the reader's loss it is said on stderr.  Arrays that ``run`` writes to stdout are data, and a full disk is an error
for them as it is for a file.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO, cast

from ..terminal_text import printable


class SafeStream(io.TextIOBase):
    """A text stream on which all that is printed is `printable`, and which cannot fail.

    Attributes:
        lost: what ended it, None as long as it works.
    """

    def __init__(self, stream: TextIO, descriptor: int) -> None:
        self.lost: BaseException | None = None
        self._stream = stream
        self._descriptor = descriptor
        self._starts_line = True
        with contextlib.suppress(AttributeError, ValueError, OSError):  # an embedding program's own
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """What else a stream has, for code that asks for it: a model's own may call ``sys.stdout.reconfigure``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream itself."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Of the stream itself."""
        return getattr(self._stream, "errors", None) or "strict"

    @property
    def buffer(self) -> BinaryIO:
        """The stream of bytes below, which cannot fail either."""
        return cast("BinaryIO", _ByteStream(self, tolerated=(OSError, ValueError)))

    @property
    def raw(self) -> BinaryIO:
        """The stream of bytes below; a program's own stream of text, such as a StringIO, has none and gets text."""
        below = getattr(self._stream, "buffer", None)
        return cast("BinaryIO", _DecodedBytes(self._stream) if below is None else below)

    @property
    def reader_left(self) -> bool:
        """Whether nobody reads it any more."""
        return isinstance(self.lost, BrokenPipeError)

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal that works."""
        with contextlib.suppress(OSError, ValueError):
            return self.lost is None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Print `text`."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.write_verbatim(printable(text, starts_line=self._starts_line))
        line = text.rpartition("\n")[2]
        self._starts_line = not line.strip() and (self._starts_line or "\n" in text)
        return len(text)

    def write_verbatim(self, text: str) -> None:
        """Print `text` that is known to be safe, and is no line of a report: colours, a command for a CI service."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # an embedding program's own stream
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
            except (OSError, ValueError) as error:
                self.lose(error)

    def flush(self) -> None:
        """Hand on what was printed."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.lose(error)

    def lose(self, error: BaseException) -> None:
        """Print nothing from here on."""
        self.lost = error
        # What Python still holds it would try to write once more, and complain.
        with contextlib.suppress(OSError, ValueError):
            if self._stream.fileno() == self._descriptor:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._descriptor)
                os.close(nowhere)


class _Verbatim(io.TextIOBase):
    """A `SafeStream` for what draws on a terminal, with names in it that were made safe before."""

    def __init__(self, stream: SafeStream) -> None:
        self._safe = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream itself."""
        return self._safe.encoding

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._safe.isatty()

    def fileno(self) -> int:
        """The stream's own."""
        return self._safe.fileno()

    def write(self, text: str) -> int:
        """Print `text` as it is."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._safe.write_verbatim(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was printed."""
        self._safe.flush()


class _DecodedBytes(io.RawIOBase):
    """Bytes for a stream that takes text alone."""

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
        """Hand them on."""
        self._stream.flush()


class _ByteStream(io.BufferedIOBase):
    """Bytes on their way to stdout.  The errors that are `tolerated` only end what is written."""

    def __init__(self, out: SafeStream, *, tolerated: tuple[type[Exception], ...]) -> None:
        self._out = out
        self._tolerated = tolerated

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, content: Any) -> int:
        """Write bytes.

        Raises:
            OSError: they cannot be written, and that is not tolerated.
        """
        self._attempt(lambda: self._out.raw.write(content))
        return memoryview(content).nbytes

    def flush(self) -> None:
        """Hand them on.

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
                raise


@dataclass(frozen=True)
class Streams:
    """A command's own stdout and stderr.

    `closed` says that there is no stdout at all.
    """

    out: SafeStream
    err: SafeStream
    closed: bool = False

    def finish(self) -> None:
        """Hand on all that was printed; where that failed, and somebody would read it, say so."""
        self.out.flush()
        if self.out.lost is not None and not self.out.reader_left:
            why = getattr(self.out.lost, "strerror", None) or self.out.lost
            self.err.write(f"lstm-onnx: stdout: cannot be written: {why}; not all of the result was printed\n")
        self.err.flush()


_current: list[Streams] = []


@contextlib.contextmanager
def standard_streams(*, keep: bool = False) -> Iterator[Streams]:
    """Make `sys.stdout` and `sys.stderr` safe; with `keep`, also after the block, until the process has ended."""
    before = sys.stdout, sys.stderr
    closed = sys.stdout is None
    streams = Streams(SafeStream(_opened(sys.stdout, 1), 1), SafeStream(_opened(sys.stderr, 2), 2), closed)
    sys.stdout, sys.stderr = cast("TextIO", streams.out), cast("TextIO", streams.err)
    _current.append(streams)
    try:
        yield streams
    finally:
        _current.pop()
        if not keep:
            sys.stdout, sys.stderr = before


def _opened(stream: TextIO | None, descriptor: int) -> TextIO:
    """A stream in the place of one that Python found closed: to where `descriptor` leads now."""
    if stream is not None:
        return stream
    return open(descriptor, "w", encoding="utf-8", closefd=False)


@contextlib.contextmanager
def off_stdout() -> Iterator[None]:
    """Within, what prints to `sys.stdout` gets to stderr; `say` goes where it always does."""
    before = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before


def stdout() -> TextIO:
    """Where results go."""
    return cast("TextIO", _current[-1].out) if _current else sys.stdout


def terminal(stream: TextIO) -> TextIO:
    """`stream` for colours and moving lines, where it is a terminal; and else as it is."""
    return cast("TextIO", _Verbatim(stream)) if isinstance(stream, SafeStream) and stream.isatty() else stream


def say(text: str) -> None:
    """A line of a result, or several, to stdout."""
    stdout().write(f"{text}\n")


def say_command(line: str) -> None:
    """A command for a CI service's runner, with what it holds escaped, to stderr: stdout may be JSON."""
    if isinstance(sys.stderr, SafeStream):
        sys.stderr.write_verbatim(f"{line}\n")
    else:
        sys.stderr.write(f"{line}\n")


def stdout_is_closed() -> bool:
    """Whether there is no stdout."""
    return bool(_current) and _current[-1].closed


def reader_left() -> bool:
    """Whether nobody reads stdout any more."""
    return bool(_current) and _current[-1].out.reader_left


def data_stdout(*, stops: bool) -> BinaryIO:
    """Where arrays go that are written to stdout.

    Args:
        stops: whether a reader who leaves ends the command (BrokenPipeError): where it would go on for ever, on
            data from a pipe.  Otherwise it goes on to its end, so that its exit code is that of all the data.
    """
    if not _current:
        return sys.stdout.buffer
    out = _current[-1].out
    with contextlib.suppress(OSError, ValueError):
        if out.raw.seekable():  # a file: nobody can leave, and zip files get their sizes where they belong
            return out.raw
    return cast("BinaryIO", _ByteStream(out, tolerated=() if stops else (BrokenPipeError,)))
