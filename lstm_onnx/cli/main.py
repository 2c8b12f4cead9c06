"""The group of commands, and how errors become one line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from .. import __version__
from ..errors import EXIT_BUG, EXIT_ERROR, LSTMOnnxError
from .bench import bench
from .check import check
from .doctor import doctor
from .export import export
from .inspect import inspect
from .interrupts import INTERRUPTED, interruptible
from .run import run
from .verify import verify


class _ReaderGoneError(Exception):
    """Whoever reads our output has read enough."""


class _Commands(click.Group):
    """click would end with 1 where a pipe is closed, and 1 says that a check has failed."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lstm-onnx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (may stand anywhere).")
def cli(debug: bool) -> None:
    """PyTorch LSTMs in production through ONNX: export, check, run and verify.

    Exit codes: 0 fine; 1 the check or the parity failed; 2 a usage, input or environment error;
    70 a bug of lstm-onnx.
    """


for _command in (export, check, run, verify, bench, inspect, doctor):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    with contextlib.suppress(AttributeError):  # an embedding program's own stream, such as a StringIO
        # Names out of files may hold what this terminal cannot show, or what is no text at all.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    with interruptible():
        code = _guarded(given, debug=debug)
    sys.exit(code)


def _guarded(arguments: list[str], *, debug: bool) -> int:
    """Run a command; every error but a bug of ours is one line on stderr."""
    try:
        again = ["--debug", *arguments] if debug else arguments
        code = cli.main(arguments, prog_name="lstm-onnx", standalone_mode=False, obj=again)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", INTERRUPTED, debug)
    except (_ReaderGoneError, BrokenPipeError):  # Python would complain again when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_ERROR
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "lstm-onnx"
        return _say(f"{error.format_message()} (see {command} --help)", EXIT_ERROR, debug)
    except click.ClickException as error:
        return _say(error.format_message(), EXIT_ERROR, debug)
    except LSTMOnnxError as error:
        return _say(str(error), error.exit_code, debug)
    except MemoryError:
        return _say("out of memory; use a smaller batch, or smaller sizes", EXIT_ERROR, debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        # Nothing more can be said on a stdout that takes nothing, and Python would try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _say(f"{place}{error.strerror or error}", EXIT_ERROR, debug)
    except Exception as error:  # noqa: BLE001 - the one place that may: whatever comes here is a bug of ours
        kind = type(error).__name__
        return _say(f"a bug of lstm-onnx: {kind}: {error}; please report it with what --debug shows", EXIT_BUG, debug)


def _say(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"lstm-onnx: {' '.join(message.split())}", err=True)
    return code
