"""Defines the group of commands, `cli`, which imports a command when it is used."""

from __future__ import annotations

import functools
import time
from collections import UserDict
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from ..version import __version__, installed_versions
from .options import detail, verbosity_options
from .streams import off_stdout

_SUMMARIES = {
    "bench": "Compare the speed of PyTorch, plain ONNX Runtime and lstm-onnx.",
    "check": "Find errors in any ONNX FILE.",
    "deploy": "Package FILE for browsers, Node or Triton.",
    "doctor": "Show what works on this machine.",
    "export": "Export SOURCE to an ONNX file.",
    "generate": "Turn a single-step ONNX FILE into one that generates whole sequences.",
    "help": "Show the help of a command, or a topic of the documentation.",
    "inspect": "Show the recurrent layers of any ONNX FILE.",
    "quantize": "Quantize a float32 ONNX FILE to int8.",
    "repair": "Rewrite another tool's ONNX FILE with recurrent operators and states.",
    "run": "Run FILE on DATA, or on random input.",
    "serve": "Serve models over HTTP, gRPC and websockets, until SIGTERM or Ctrl-C.",
    "stream": "Convert a whole-sequence ONNX FILE to one that takes chunks.",
    "verify": "Compare FILE with the PyTorch model SOURCE.",
}
"""The commands, each in a module of this package, and the first line of their help; --help imports none of them."""
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch")


class _Commands(UserDict[str, click.Command]):
    """The commands by name; each is imported when it is looked up."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(_SUMMARIES, _NOT_IMPORTED))

    def __getitem__(self, name: str) -> click.Command:
        if self.data[name] is _NOT_IMPORTED:
            self.data[name] = _imported(name)
        return self.data[name]


_NOT_IMPORTED = click.Command(None)


class _Group(click.Group):
    """A group that suggests a command for one that does not exist."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.commands = _Commands()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, _SUMMARIES[name]) for name in sorted(_SUMMARIES)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            from .help import did_you_mean

            hint = did_you_mean(name, list(self.commands))
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings=_SETTINGS)
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
    """A command whose stdout has only its results: what a model's code prints goes to stderr."""

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
    import platform

    versions = {"lstm-onnx": __version__, "Python": platform.python_version(), **installed_versions(_PACKAGES)}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _imported(name: str) -> click.Command:
    module = import_module(f"{__package__}.{name}")
    command: click.Command = module.help_command if name == "help" else getattr(module, name)
    for each in command.commands.values() if isinstance(command, click.Group) else (command,):
        assert each.callback is not None  # noqa: S101 - each is a function
        each.callback = _wrapped(each.callback)
        each.params += verbosity_options()
    return command


cli.params += verbosity_options()
