"""The group of commands."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import click

from .. import __version__
from .bench import bench
from .check import check
from .deploy import deploy
from .doctor import doctor
from .export import export
from .help import did_you_mean, help_command
from .inspect import inspect
from .options import detail, verbosity_options
from .quantize import quantize
from .run import run
from .serve import serve
from .stream import stream
from .streams import off_stdout
from .verify import verify

_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch")


class _Group(click.Group):
    """A group that suggests a command for one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            hint = did_you_mean(name, list(self.commands))
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lstm-onnx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; may also follow the command.")
def cli(debug: bool) -> None:
    """Export PyTorch LSTMs to ONNX, and check, run, verify and quantize the files.

    \b
    Exit codes:
      0              success
      1              the check failed, or the file is not in parity with PyTorch
      2              a usage, input or environment error
      70             a bug in lstm-onnx
      129, 130, 143  ended by SIGHUP, Ctrl-C, SIGTERM
    """


def _wrapped(callback: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose stdout has its results alone: what a model's code prints goes to stderr."""

    @functools.wraps(callback)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with off_stdout():
            began = time.perf_counter()
            detail(_versions)
            result = callback(*arguments, **keywords)
            detail(lambda: f"took {time.perf_counter() - began:.2f} s")
            return result

    return call


def _versions() -> str:
    import importlib.metadata
    import platform

    versions = [f"lstm-onnx {__version__}", f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(versions)


cli.params += verbosity_options()
for _command in (export, quantize, stream, check, run, serve, deploy, verify, bench, inspect, doctor, help_command):
    cli.add_command(_command)
    for _each in _command.commands.values() if isinstance(_command, click.Group) else (_command,):
        assert _each.callback is not None  # noqa: S101 - each is a function
        _each.callback = _wrapped(_each.callback)
        _each.params += verbosity_options()
