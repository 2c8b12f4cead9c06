"""Types of options and arguments: options that may be given once, files, execution providers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

PROVIDERS = ("auto", "cpu", "cuda")
_ORT_PROVIDERS = {"cpuexecutionprovider": "cpu", "cudaexecutionprovider": "cuda"}
"""ONNX Runtime's names of them, in lower case."""


class Option(click.Option):
    """An option that is an error if it is given twice, where only one of the values could be used."""

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
                raise click.UsageError(f"{name} and {opposite} were both given; keep one of them", ctx)
        elif len(values) > 1:
            listing = " and ".join(str(value) for value in values)
            raise click.UsageError(f"{name} was given {len(values)} times, with {listing}; give it once", ctx)


option = functools.partial(click.option, cls=Option)
"""`click.option` for `Option`."""


class FileName(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """The name of a file: text, which a shell completes from the folder."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`value`: whoever opens the file checks it, with a better message."""
        del param, ctx
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Files and folders."""
        del ctx, param
        return [CompletionItem(incomplete, type="file")]


class ProviderName(click.Choice[str]):
    """auto, cpu or cuda, or ONNX Runtime's name of the latter two."""

    def __init__(self) -> None:
        super().__init__(PROVIDERS, case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of `PROVIDERS`."""
        return super().convert(_ORT_PROVIDERS.get(str(value).lower(), value), param, ctx)


FILE = FileName()
