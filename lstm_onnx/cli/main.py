"""The entry point: runs a command, and turns errors into one line on stderr and an exit code.

The exit code is that of the command's result, whether or not somebody reads stdout and stderr; but it is 2 if the
result of a successful command could not be written to stdout.  Only small modules of the standard library are imported
at the top, so that signals are handled from the first line of `main` on.
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
    """Run the command line, and exit with its exit code.

    Args:
        arguments: the command and its options.  None is for a process that does nothing else: it uses
            ``sys.argv``, and handles signals until the process has ended.

    Raises:
        SystemExit: always.
    """
    if arguments is not None:
        with Interrupts() as interrupts:
            try:
                code = _run(list(arguments), interrupts)
            except KeyboardInterrupt:  # at the very end of the command
                code = interrupts.code or INTERRUPTED
        sys.exit(code)
    interrupts = Interrupts(owns_process=True)
    interrupts.install()
    _open_closed_descriptors()
    try:
        interrupts.watch()
        code = _run(sys.argv[1:], interrupts)
    except BaseException:  # raised by a signal handler: `_run` handles everything else
        if interrupts.code is None:
            raise
        leave(interrupts.code)
    if interrupts.code is not None:
        leave(interrupts.code, reported=interrupts.reported)
    sys.exit(code)


def _open_closed_descriptors() -> None:
    """Open /dev/null in place of a stdin, stdout or stderr that is closed.

    Otherwise the next file to be opened would get its number, and what a library writes to stderr would go into that
    file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # open() returns the lowest free number


def _run(arguments: list[str], interrupts: Interrupts) -> int:
    from .streams import standard_streams

    with standard_streams(keep=interrupts.owns_process) as streams:
        interrupts.raising = True
        code = _guarded(arguments, streams, interrupts)
        interrupts.raising = False
        return streams.finish(code, as_json="--json" in arguments)


def _guarded(arguments: list[str], streams: Streams, interrupts: Interrupts) -> int:
    """Run a command, and print its error if it has one."""
    debug = not {"--debug", "-v", "--verbose"}.isdisjoint(arguments)
    as_json = "--json" in arguments
    try:
        from .group import cli

        again = arguments  # for a command that runs itself in a child process
        arguments = [argument for argument in arguments if argument != "--debug"]
        code = cli.main(arguments, prog_name="lstm-onnx", standalone_mode=False, obj=again)
        if interrupts.code is None:
            return code if isinstance(code, int) else 0
    except BaseException as error:  # noqa: BLE001 - what a signal raised can arrive as any other error
        if interrupts.code is None:
            return _report(error, streams, debug=debug, as_json=as_json)
    _report(KeyboardInterrupt(), streams, debug=debug, as_json=as_json, code=interrupts.code)
    interrupts.reported = True
    return interrupts.code


def _report(error: BaseException, streams: Streams, *, debug: bool, as_json: bool, code: int | None = None) -> int:
    """Print an error to stderr, and return its exit code, or `code` if given."""
    from typing import TextIO, cast

    from .error_text import print_error

    if debug and error.__traceback__ is not None:
        import traceback

        streams.err.write("".join(traceback.format_exception(error)))
    return print_error(error, as_json=as_json, stream=cast("TextIO", streams.err), code=code)
