"""Prints errors to stderr: one line of text each or, with --json, one JSON object."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import TextIO

import click

from ..errors import EXIT_BUG, EXIT_ERROR, LSTMOnnxError
from ..terminal_text import MOST_MESSAGE, json_text, one_line
from .interrupts import INTERRUPTED

_NO_MEMORY = ("failed to map segment from shared object", "cannot allocate memory")
"""The messages of the system's loader for too little memory."""


@dataclass(frozen=True)
class ErrorText:
    """The text of an error.

    Attributes:
        type: the name of its class.
        message: what is wrong and how to fix it; "" prints nothing.
        code: the exit code.
        path: the file that it is about, if known.
        hint: how to fix it, if the error has this separately from the message.
    """

    type: str
    message: str
    code: int = EXIT_ERROR
    path: str | None = None
    hint: str | None = None

    def line(self, *, as_json: bool) -> str:
        """One line, or the lines of a help text that is printed instead of a result."""
        if as_json:
            fields = {"type": self.type, "message": self.message, "exit_code": self.code}
            return json_text({"schema": 1, "error": {**fields, "path": self.path, "hint": self.hint}}, indent=None)
        return (
            self.message if self.message.startswith("Usage: ") else f"lstm-onnx: {one_line(self.message, MOST_MESSAGE)}"
        )


def describe(error: BaseException) -> ErrorText:
    """The text of any error that can end a command."""
    kind = type(error).__name__
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return ErrorText(kind, error.format_message())
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "lstm-onnx"
        hint = f"see {command} --help"
        return ErrorText(kind, f"{error.format_message()} ({hint})", hint=hint)
    if isinstance(error, click.ClickException):
        return ErrorText(kind, error.format_message())
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return ErrorText("Interrupted", "interrupted", INTERRUPTED)
    if isinstance(error, LSTMOnnxError):
        return ErrorText(kind, str(error), error.exit_code, error.path, error.hint)
    if (lacking := _lacking(error)) is not None:
        return ErrorText(kind, lacking)
    if isinstance(error, SystemExit):
        if "_LSTM_ONNX_COMPLETE" in os.environ and isinstance(error.code, int):  # click's shell completion
            return ErrorText(kind, "", error.code)
        return ErrorText(kind, f"the model's code ended the program (SystemExit: {error.code}); remove that from it")
    if isinstance(error, FileNotFoundError) and not error.filename and not _folder_exists():
        return ErrorText(kind, "the current folder was removed; change to another one")
    if isinstance(error, OSError):
        path = str(error.filename) if error.filename else None
        return ErrorText(
            kind, f"{path}: {error.strerror or error}" if path else f"{error.strerror or error}", path=path
        )
    message = f"a bug in lstm-onnx: {kind}: {error}; please report it with the output of --debug"
    return ErrorText(kind, message, EXIT_BUG)


def _lacking(error: BaseException) -> str | None:
    """The message if the system has too little memory, or too few processes; None for other errors."""
    if isinstance(error, MemoryError):
        return "out of memory; use a smaller batch, or smaller sizes"
    if isinstance(error, ImportError) and any(text in str(error) for text in _NO_MEMORY):
        return f"out of memory while loading a library: {error}"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "the system starts no more threads; raise its limit on processes, such as a container's"
    return None


def _folder_exists() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109 - without pathlib
    except OSError:
        return False


def wants_json() -> bool:
    """Whether the running command has --json."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))


def print_error(
    error: BaseException, *, as_json: bool | None = None, stream: TextIO | None = None, code: int | None = None
) -> int:
    """Print an error, and return its exit code.

    Args:
        error: any exception.
        as_json: whether to print JSON; None to follow the command's --json.
        stream: the stream to print to; stderr by default.
        code: the exit code, if it differs from the error's own.
    """
    text = describe(error)
    if code is not None:
        text = replace(text, code=code)
    if text.message:
        line = text.line(as_json=wants_json() if as_json is None else as_json)
        (sys.stderr if stream is None else stream).write(f"{line}\n")
    return text.code
