"""A command as a process: its exit code is that of its result, whoever reads what it prints.

Errors become one line and an exit code.  Nothing but the standard library's smallest parts is imported at the
top: from the first line of `main` on, a signal ends the process with its own exit code.
"""

from __future__ import annotations

import os
import sys

from .interrupts import INTERRUPTED, Interrupts, leave

TYPE_CHECKING = False  # see `lstm_onnx`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from .streams import Streams


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code.

    Args:
        arguments: the command and its options.  None is for a process that does nothing else: those of
            ``sys.argv``; signals are then taken care of until it has ended.

    Raises:
        SystemExit: always.
    """
    if arguments is not None:
        with Interrupts() as interrupts:
            try:
                code = _run(list(arguments), interrupts)
            except KeyboardInterrupt:  # at the very end of it
                code = interrupts.code or INTERRUPTED
        sys.exit(code)
    interrupts = Interrupts(owns_process=True)
    interrupts.install()
    _open_closed_descriptors()
    try:
        interrupts.watch()
        code = _run(sys.argv[1:], interrupts)
    except BaseException:  # only what a signal raised gets here: `_run` answers for all else
        if interrupts.code is None:
            raise
        leave(interrupts.code)
    if interrupts.code is not None:
        leave(interrupts.code, told=interrupts.told)
    sys.exit(code)


def _open_closed_descriptors() -> None:
    """Let stdin, stdout and stderr that are closed lead nowhere.

    The next file to be opened would get the free number, and what a library writes to stderr would go into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free


def _run(given: list[str], interrupts: Interrupts) -> int:
    from .streams import standard_streams

    debug = "--debug" in given
    with standard_streams(keep=interrupts.owns_process) as streams:
        interrupts.raising = True
        code = _guarded([each for each in given if each != "--debug"], streams, interrupts, debug=debug)
        interrupts.raising = False
        streams.finish()
    return code


def _guarded(arguments: list[str], streams: Streams, interrupts: Interrupts, *, debug: bool) -> int:
    """Run a command; every error but a bug of ours is one line on stderr."""
    try:
        from .group import cli

        again = ["--debug", *arguments] if debug else arguments  # for a command that runs itself in a child process
        code = cli.main(arguments, prog_name="lstm-onnx", standalone_mode=False, obj=again)
        if interrupts.code is None:
            return code if isinstance(code, int) else 0
    except BaseException as error:  # noqa: BLE001 - what a signal raised can arrive as any other error
        if interrupts.code is None:
            message, code = _told(error)
            return _say(message, code, streams, debug=debug)
    _say("interrupted", interrupts.code, streams, debug=debug)
    interrupts.told = True
    return interrupts.code


def _told(error: BaseException) -> tuple[str, int]:
    """What is said of an error, and its exit code."""
    import click

    from ..errors import EXIT_BUG, EXIT_ERROR, LSTMOnnxError

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), EXIT_ERROR
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "lstm-onnx"
        return f"{error.format_message()} (see {command} --help)", EXIT_ERROR
    if isinstance(error, click.ClickException):
        return error.format_message(), EXIT_ERROR
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return "interrupted", INTERRUPTED
    if isinstance(error, LSTMOnnxError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return "out of memory; use a smaller batch, or smaller sizes", EXIT_ERROR
    if isinstance(error, SystemExit):
        if "_LSTM_ONNX_COMPLETE" in os.environ and isinstance(error.code, int):  # click's completion of a shell
            return "", error.code
        return f"the model's own code ended the program (SystemExit: {error.code}); take that out of it", EXIT_ERROR
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}", EXIT_ERROR
    kind = type(error).__name__
    return f"a bug of lstm-onnx: {kind}: {error}; please report it with what --debug shows", EXIT_BUG


def _say(message: str, code: int, streams: Streams, *, debug: bool) -> int:
    from ..terminal_text import MOST_MESSAGE, one_line

    if debug:
        import traceback

        streams.err.write(traceback.format_exc())
    if message.startswith("Usage: "):  # help in the place of a result has its lines
        streams.err.write(f"{message}\n")
    elif message:
        streams.err.write(f"lstm-onnx: {one_line(message, MOST_MESSAGE)}\n")
    return code
