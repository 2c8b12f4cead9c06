"""Runs a command in a child process, so that a file that lstm-onnx did not write cannot crash this one."""

from __future__ import annotations

import os
import sys

import click

from .streams import stdout


def needs_child(file: str, isolate: bool | None = None) -> bool:
    """Whether this command must run in a child process, and is not yet in one.

    Args:
        file: the model, which must exist.
        isolate: True for any file, False for none, None for files that lstm-onnx did not write or that were changed.
    """
    from ..checksum import is_intact
    from ..isolation.stages import inside

    return not inside() and (isolate or (isolate is None and not is_intact(file)))


def run_in_child(file: str) -> int:
    """Run this command in a child process, and return its exit code.  On POSIX systems.

    Raises:
        ModelError: the child crashed, or was ended at a limit.
    """
    from ..errors import ModelError
    from ..isolation.limits import Limits
    from ..isolation.process import EndedError
    from ..isolation.supervision import supervised

    own_arguments = click.get_current_context().obj
    arguments = sys.argv[1:] if own_arguments is None else own_arguments
    try:
        return supervised("lstm_onnx.cli.main:main", {"arguments": arguments}, Limits.of(file), stdout=stdout())
    except EndedError as ended:
        raise ModelError(f"{file}: the child process that ran it {ended}; see lstm-onnx check") from ended


def exit_after_child(file: str) -> None:
    """If the command `needs_child`, run it in a child process and exit; for commands that run the whole file."""
    from ..atomic_io import require_readable
    from ..isolation.stages import unlimited

    require_readable(file, "an .onnx file")
    if needs_child(file) and os.name == "posix":  # on Windows a child process does not inherit another pipe
        click.get_current_context().exit(run_in_child(file))
    unlimited()  # in the child, whose further work has no time limit
