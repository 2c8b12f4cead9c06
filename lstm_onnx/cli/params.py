"""Defines types of options and arguments: files, execution providers, pairs of names."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

PROVIDERS = ("auto", "cpu", "cuda")
_ORT_PROVIDERS = {"cpuexecutionprovider": "cpu", "cudaexecutionprovider": "cuda"}
"""ONNX Runtime's names of the providers, in lower case."""
_SOURCE_SUFFIXES = (".toml", ".safetensors", ".pt", ".pth", ".py")


class Option(click.Option):
    """An option that is an error if it is given twice but has only one value."""

    @property
    def _is_pair(self) -> bool:
        """Whether it is a flag with an opposite, such as --check and --no-check."""
        return bool(self.is_flag and self.secondary_opts)

    @property
    def _is_single(self) -> bool:
        return not self.multiple and not self.count and (self._is_pair or not self.is_flag)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Make the parser keep all values."""
        if not self._is_single:
            super().add_to_parser(parser, ctx)
        elif self._is_pair:
            for names, value in ((self.opts, True), (self.secondary_opts, False)):
                parser.add_option(obj=self, opts=names, dest=self.name, action="append_const", const=value)
        else:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs)

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:
        """The one value.

        Raises:
            click.UsageError: there are several.
        """
        name = self.name or ""
        if self._is_single and isinstance(opts.get(name), list):
            values = opts[name]
            if not ctx.resilient_parsing:
                self._require_one(values, ctx)
            opts = {**opts, name: values[-1]}
        return super().consume_value(ctx, opts)

    def _require_one(self, values: list[Any], ctx: click.Context) -> None:
        name = max(self.opts, key=len)
        if self._is_pair:
            if len(set(values)) > 1:
                opposite = max(self.secondary_opts, key=len)
                raise click.UsageError(f"{name} and {opposite} were both given; pass one of them", ctx)
        elif len(values) > 1:
            listing = " and ".join(str(value) for value in values)
            raise click.UsageError(f"{name} was given {len(values)} times, with {listing}; give it once", ctx)


option = functools.partial(click.option, cls=Option)
"""`click.option` for `Option`."""


class FileName(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """The name of a file: text, which a shell completes from the folder."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`value`, unchecked, since opening the file gives a better message."""
        del param, ctx
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Files and folders."""
        from click.shell_completion import CompletionItem  # imported late, as csv below: --help needs neither

        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class NumberRange(click.FloatRange):
    """A range of numbers that excludes NaN, which is neither below nor above any bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number that `value` represents."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class ProviderName(click.Choice[str]):
    """auto, cpu or cuda, or ONNX Runtime's name for cpu or cuda."""

    def __init__(self) -> None:
        super().__init__(PROVIDERS, case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of `PROVIDERS`."""
        return super().convert(_ORT_PROVIDERS.get(str(value).lower(), value), param, ctx)


FILE = FileName()


def name_pair(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, str]:
    """The callback for an option such as INPUT=OUTPUT: both names."""
    name, _, other = text.rpartition("=")
    if not name or not other:
        raise click.BadParameter(f"{text!r} is not {param.metavar}", ctx, param)
    return name, other


def name_pairs(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The callback for such an option that may be repeated."""
    return tuple(name_pair(ctx, param, text) for text in texts)


def by_name(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> dict[str, str]:
    """As `name_pairs`, but each first name may be given only once."""
    pairs = name_pairs(ctx, param, texts)
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"{twice} was given twice; give it once", ctx, param)
    return dict(pairs)


def column_names(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    """The callback for A,B,...: the names, written as in the first line of a .csv, where a comma needs quotes."""
    if text is None:
        return None
    import csv

    try:
        (names,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:  # such as for a line break outside quotes
        raise click.BadParameter(f"{text!r} is not a list of names: {error}", ctx, param) from None
    names = [name.strip() for name in names]
    if "" in names or not names:
        raise click.BadParameter(f"{text!r} has an empty name", ctx, param)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"{twice} was given twice; give it once", ctx, param)
    return names


def integer_by_name(ctx: click.Context, param: click.Parameter, texts: Sequence[str]) -> dict[str, int]:
    """As `by_name`, for INPUT=AXIS."""
    axes: dict[str, int] = {}
    for name, number in by_name(ctx, param, texts).items():
        try:
            axes[name] = int(number)
        except ValueError:
            raise click.BadParameter(f"'{name}={number}' is not {param.metavar}", ctx, param) from None
    return axes


def require_onnx_output(path: str) -> None:
    """Refuse a path to which no ONNX file should be written.

    Raises:
        click.UsageError: the path is stdout, or has the suffix of a source.
        FileError: the path is not UTF-8.
    """
    from pathlib import Path

    from ..atomic_io import require_utf8

    if path == "-":
        raise click.UsageError("an ONNX file is not written to stdout; name a file with -o")
    if Path(path).suffix.lower() in _SOURCE_SUFFIXES:
        raise click.UsageError(f"-o {path} is not an ONNX file, and could overwrite a source; end it in .onnx")
    require_utf8(path)


def onnx_output(ctx: click.Context, param: click.Parameter, path: str) -> str:
    """The callback of --output: the path, after `require_onnx_output`."""
    del ctx, param
    require_onnx_output(path)
    return path
