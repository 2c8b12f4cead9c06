"""Options that several commands share, and what they have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from .streams import say, terminal

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
    if as_json:
        say_json(result.to_dict())
    else:
        say(str(result))


def say_json(value: object) -> None:
    """Print `value` as JSON to stdout; an object gets the key ``schema``, the version of its layout, if it has none."""
    from ..terminal_text import json_text

    say(json_text({"schema": 1, **value} if isinstance(value, dict) else value))


def note(message: str) -> None:
    """A remark on stderr: one line, which a path or a name in it cannot break."""
    from ..terminal_text import MOST_MESSAGE, one_line

    sys.stderr.write(f"{one_line(message, MOST_MESSAGE)}\n")


def progress_note(message: str) -> None:
    """A note on what is done next, where stderr is a terminal."""
    if sys.stderr.isatty():
        note(message)


@contextmanager
def progress(items: Iterable[T], label: str, length: int | None = None) -> Iterator[Iterator[T]]:
    """`items` with a progress bar on stderr, where that is a terminal."""
    stream = terminal(sys.stderr)
    with click.progressbar(items, length=length, label=label, file=stream, hidden=not stream.isatty()) as shown:
        yield iter(shown)


def write_then_show(writes: Iterable[Callable[[], None]], show: Callable[[], None]) -> None:
    """Write the files of a result, and only then print it: whoever reads it has no say in what is written.

    Raises:
        LSTMOnnxError: of the first file that could not be written, once all others are and the result is printed.
    """
    from ..errors import LSTMOnnxError

    failed: list[LSTMOnnxError] = []
    for write in writes:
        try:
            write()
        except LSTMOnnxError as error:
            failed.append(error)
    show()
    for further in failed[1:]:
        note(f"lstm-onnx: {further}")
    if failed:
        raise failed[0]
