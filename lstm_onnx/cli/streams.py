"""Wraps a command's stdout and stderr so that its text is safe for terminals, and printing never raises an error.

The reader of a pipe may stop (``| head``), and stdout and stderr may be closed.  That is not an error of the command,
whose exit code is that of its result.  But a result that cannot be printed although somebody would read it, as on a
full disk, is an error like that for a file, raised after the command has done everything else.  So is a JSON result for
a closed stdout.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO, cast

from ..errors import EXIT_ERROR, FileError
from ..isolation.stages import inside
from ..terminal_text import printable
from .byte_streams import BorrowedStream, ByteStream, DecodedBytes, FileBytes, opened


class SafeStream(BorrowedStream, io.TextIOBase):
    """A text stream that makes text `printable` and never raises OSError.

    Attributes:
        lost: the error after which nothing more is printed; None while the stream works.
        raised: whether that error was raised, so that the command ends with it.
    """

    def __init__(self, stream: TextIO, descriptor: int) -> None:
        self.lost: BaseException | None = None
        self.raised = False
        self._stream = stream
        self._descriptor = descriptor
        self._starts_line = True
        with contextlib.suppress(AttributeError, ValueError, OSError):  # an embedding program's stream may lack this
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the stream: a model's code may call ``sys.stdout.reconfigure``."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the underlying stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """That of the underlying stream."""
        return getattr(self._stream, "errors", None) or "strict"

    @property
    def buffer(self) -> BinaryIO:
        """The underlying byte stream, which never raises an OSError either."""
        return cast("BinaryIO", ByteStream(self, tolerated=(OSError, ValueError)))

    @property
    def raw(self) -> BinaryIO:
        """The underlying byte stream; one that decodes to text for a stream without bytes, such as StringIO."""
        buffer = getattr(self._stream, "buffer", None)
        return cast("BinaryIO", DecodedBytes(self._stream) if buffer is None else buffer)

    @property
    def why_lost(self) -> str:
        """The reason of `lost`."""
        return str(getattr(self.lost, "strerror", None) or self.lost)

    @property
    def reader_left(self) -> bool:
        """Whether the reader of the pipe has closed it."""
        return isinstance(self.lost, BrokenPipeError)

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Whether it is a working terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self.lost is None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """That of the underlying stream."""
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
        """Print `text` unchanged: colours, or a command for a CI service, whose variable parts are already safe."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # an embedding program's stream may have any encoding
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
            except (OSError, ValueError) as error:
                self.lose(error)

    def flush(self) -> None:
        """Flush the underlying stream."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.lose(error)

    def hand_over(self) -> None:
        """Let the file system report whether it has stored what was flushed, which a network file system does late."""
        if self.lost is None:
            try:
                os.close(os.dup(self._stream.fileno()))
            except (OSError, ValueError, AttributeError) as error:
                if isinstance(error, OSError) and not isinstance(error, io.UnsupportedOperation):
                    self.lose(error)

    def lose(self, error: BaseException) -> None:
        """Print nothing more."""
        self.lost = error
        # Otherwise Python would try to write its buffer again at exit, and print an error.
        with contextlib.suppress(OSError, ValueError):
            if self._stream.fileno() == self._descriptor:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._descriptor)
                os.close(nowhere)


class _Verbatim:
    """A `SafeStream` for colours and progress bars, in which names are already safe."""

    def __init__(self, stream: SafeStream) -> None:
        self._safe = stream

    def __getattr__(self, name: str) -> Any:
        """Other attributes are the stream's."""
        return getattr(self._safe, name)

    def write(self, text: str) -> int:
        """Print `text` unchanged."""
        self._safe.write_verbatim(text)
        return len(text)


@dataclass(frozen=True)
class Streams:
    """The stdout and stderr of a command; `closed` is whether stdout was closed from the start."""

    out: SafeStream
    err: SafeStream
    closed: bool = False

    def finish(self, code: int, *, as_json: bool) -> int:
        """Flush, and print an error if the result could not be printed although somebody would read it.

        Args:
            code: the exit code of the command.
            as_json: whether its result is JSON, for a program, so that the error is printed as JSON, too.

        Returns:
            `code`; `EXIT_ERROR` if that is 0 but the result could not be printed.
        """
        self.out.flush()
        self.out.hand_over()
        why = None
        if self.out.lost is not None and not self.out.reader_left and not self.out.raised:
            why = f"stdout: cannot be written: {self.out.why_lost}", "the printed result is incomplete"
        elif self.closed and as_json and code == 0:
            why = "stdout: is closed", "the printed result is lost"
        if why is not None:
            from .error_text import ErrorText

            code = code or EXIT_ERROR
            error = ErrorText("FileError", "; ".join(why), code, path="stdout", hint=why[1])
            self.err.write(f"{error.line(as_json=as_json)}\n")
        self.err.flush()
        return code


_current: list[Streams] = []


@contextlib.contextmanager
def standard_streams(*, keep: bool = False) -> Iterator[Streams]:
    """A context in which `sys.stdout` and `sys.stderr` are safe; with `keep`, they stay so until the process ends."""
    before = sys.stdout, sys.stderr
    closed = sys.stdout is None
    # In a child process of lstm-onnx, stderr has another descriptor.
    err = sys.stderr.fileno() if inside() and sys.stderr is not None else 2
    streams = Streams(SafeStream(opened(sys.stdout, 1), 1), SafeStream(opened(sys.stderr, err), err), closed)
    sys.stdout, sys.stderr = cast("TextIO", streams.out), cast("TextIO", streams.err)
    _current.append(streams)
    try:
        yield streams
    finally:
        _current.pop()
        if not keep:
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def off_stdout() -> Iterator[None]:
    """A context in which `sys.stdout` goes to stderr; `say` still prints to stdout."""
    before = sys.stdout
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before


def stdout() -> TextIO:
    """The stream for results."""
    return cast("TextIO", _current[-1].out) if _current else sys.stdout


def terminal(stream: TextIO) -> TextIO:
    """`stream` for colours and progress bars if it is a terminal; unchanged if not."""
    return cast("TextIO", _Verbatim(stream)) if isinstance(stream, SafeStream) and stream.isatty() else stream


def say(text: str) -> None:
    """Print lines of a result to stdout and flush it, since the command may run on for a long time."""
    stdout().write(f"{text}\n")
    stdout().flush()


def require_said() -> None:
    """Raise an error if what was printed could not be written to stdout, unless its reader has closed it.

    Raises:
        FileError: stdout cannot be written.
    """
    out = _current[-1].out if _current else None
    if out is not None and out.lost is not None and not out.reader_left:
        out.raised = True
        raise FileError(f"cannot be written: {out.why_lost}", path="stdout") from out.lost


def say_command(line: str) -> None:
    """Print an escaped command for a CI service to stderr, since stdout may be JSON."""
    if isinstance(sys.stderr, SafeStream):
        sys.stderr.write_verbatim(f"{line}\n")
    else:
        sys.stderr.write(f"{line}\n")


def stdout_is_closed() -> bool:
    """Whether stdout was closed from the start."""
    return bool(_current) and _current[-1].closed


def reader_left() -> bool:
    """Whether the reader of stdout has closed it."""
    return bool(_current) and _current[-1].out.reader_left


def data_stdout(*, stops: bool) -> BinaryIO:
    """The byte stream for arrays on stdout.

    Args:
        stops: whether the command ends (BrokenPipeError) when the reader of stdout closes it, because its input is a
            pipe that may never end.  Otherwise it continues, so that its exit code covers all of the data.
    """
    if not _current:
        return sys.stdout.buffer
    out = _current[-1].out
    with contextlib.suppress(OSError, ValueError):
        if out.raw.seekable():
            return cast("BinaryIO", FileBytes(out, tolerated=()))
    return cast("BinaryIO", ByteStream(out, tolerated=() if stops else (BrokenPipeError,)))
