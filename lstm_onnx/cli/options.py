"""Options that several commands share, and what they have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def provider_options(function: F) -> F:
    """--provider and --threads."""
    return provider_option(threads_option(function))


def threads_option(function: F) -> F:
    """--threads."""
    return click.option(
        "--threads", type=click.IntRange(min=1), help="Threads of ONNX Runtime.  [default: one a core]"
    )(function)


def provider_option(function: F) -> F:
    """--provider."""
    return click.option(
        "--provider",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to run; cuda means CUDA or an error.",
    )(function)


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def report(result: Any, *, as_json: bool) -> None:
    """Print a report that has ``to_dict`` and ``__str__`` to stdout."""
    import json

    click.echo(json.dumps(result.to_dict(), indent=2, allow_nan=False) if as_json else str(result))


def note(message: str) -> None:
    """A remark on stderr."""
    click.echo(message, err=True)


@contextmanager
def progress(items: Iterable[T], label: str, length: int | None = None) -> Iterator[Iterator[T]]:
    """`items` with a progress bar on stderr, where that is a terminal."""
    with click.progressbar(items, length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as shown:
        yield iter(shown)
