"""The group of commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from .. import __version__
from .bench import bench
from .check import check
from .doctor import doctor
from .export import export
from .inspect import inspect
from .run import run
from .streams import off_stdout
from .verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lstm-onnx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error (may stand anywhere).")
def cli(debug: bool) -> None:
    """PyTorch LSTMs in production through ONNX: export, check, run and verify.

    Exit codes: 0 fine; 1 the check or the parity failed; 2 a usage, input or environment error;
    70 a bug of lstm-onnx.
    """


def _results_alone(callback: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose results are all that it writes to stdout: what a model's own code prints is a remark."""

    @functools.wraps(callback)
    def called(*arguments: Any, **keywords: Any) -> Any:
        with off_stdout():
            return callback(*arguments, **keywords)

    return called


for _command in (export, check, run, verify, bench, inspect, doctor):
    assert _command.callback is not None  # noqa: S101 - each is a function
    _command.callback = _results_alone(_command.callback)
    cli.add_command(_command)
