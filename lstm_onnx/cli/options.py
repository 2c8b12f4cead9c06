"""Defines options that several commands share, and functions with which commands print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from .params import FILE, ProviderName, option
from .streams import say, terminal

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_QUIET, _VERBOSE = "lstm_onnx.quiet", "lstm_onnx.verbose"
"""Keys of click's `Context.meta`, which a command shares with the group."""

_STATES = "A state input, and the output that is its next value, for files of other tools; may be repeated."


threads_option = option(
    "--threads", type=click.IntRange(min=1), help="Number of threads of ONNX Runtime.  [default: one per core]"
)
provider_option = option(
    "--provider",
    type=ProviderName(),
    default="auto",
    help="Execution provider; cuda fails if CUDA cannot be used.  ONNX Runtime's names are accepted too.",
)
seed_option = option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the random inputs.")
json_option = option("--json", "as_json", is_flag=True, help="Print the result, or the error, as JSON.")


def provider_options(function: F) -> F:
    """--provider and --threads."""
    return provider_option(threads_option(function))


def data_option(what: str) -> Callable[[F], F]:
    """--data, for `first_record`; `what` describes it in the help."""
    text = f"{what}, in any format that run reads: its first record.  [default: random]"
    return option("--data", metavar="DATA", type=FILE, help=text)


def first_record(file: str, data: str | None, states: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """The first record of a data file as inputs of the model in `file`; None if --data was not given."""
    if data is None:
        return None
    from ..parity.user_data import read
    from ..runtime import load

    found = read(data)
    with load(file, provider="cpu", threads=1, states=states, trial=None) as model:
        records, _ = found.feeds(model)
    return dict(records[0])


def state_option(callback: Callable[..., Any], text: str = _STATES) -> Callable[[F], F]:
    """--state; the default `text` is for files that do not pair their states."""
    return option("--state", "states", multiple=True, metavar="INPUT=OUTPUT", callback=callback, help=text)


def verbosity_options() -> list[click.Parameter]:
    """--quiet and --verbose, for the group and for every command."""

    def keep(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta[_QUIET if param.name == "quiet" else _VERBOSE] = True
            if ctx.meta.get(_QUIET) and ctx.meta.get(_VERBOSE):
                raise click.UsageError("--quiet and --verbose were both given; pass one of them")

    def flag(*names: str, text: str) -> click.Parameter:
        return click.Option(names, is_flag=True, expose_value=False, callback=keep, help=text)

    return [
        flag("-q", "--quiet", text="No progress and no notes; errors are still printed."),
        flag("-v", "--verbose", text="Versions and times on stderr, and the traceback of an error."),
    ]


def _is_set(key: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def is_given(parameter: str) -> bool:
    """Whether the command line has an option, by the name of its parameter."""
    return click.get_current_context().get_parameter_source(parameter) == ParameterSource.COMMANDLINE


def is_quiet() -> bool:
    """Whether --quiet was given."""
    return _is_set(_QUIET)


def report(result: Any, *, as_json: bool) -> None:
    """Print a report that has ``to_dict`` and ``__str__`` to stdout."""
    if as_json:
        say_json(result.to_dict())
    else:
        say(str(result))


def json_result(value: dict[str, Any], *, indent: int | None = 2) -> str:
    """A result as JSON, on one line if `indent` is None; ``schema``, the version of its layout, is added if missing."""
    from ..terminal_text import json_text

    return json_text({"schema": 1, **value}, indent=indent)


def say_json(value: dict[str, Any]) -> None:
    """Print a result as JSON to stdout."""
    say(json_result(value))


def warn(message: str) -> None:
    """Print a line to stderr; line breaks in its paths and names are escaped."""
    from ..terminal_text import MOST_MESSAGE, one_line

    sys.stderr.write(f"{one_line(message, MOST_MESSAGE)}\n")


def note(message: str) -> None:
    """Print a line to stderr, unless --quiet."""
    if not _is_set(_QUIET):
        warn(message)


def progress_note(message: str) -> None:
    """Print a note about what is done next, if stderr is a terminal."""
    if sys.stderr.isatty():
        note(message)


def detail(message: Callable[[], str]) -> None:
    """Print a line to stderr if --verbose; only then is `message` called."""
    if _is_set(_VERBOSE):
        warn(message())


@contextmanager
def progress(items: Iterable[T], label: str, length: int | None = None) -> Iterator[Iterator[T]]:
    """`items` with a progress bar on stderr, if that is a terminal."""
    stream = terminal(sys.stderr)
    hidden = _is_set(_QUIET) or not stream.isatty()
    with click.progressbar(items, length=length, label=label, file=stream, hidden=hidden) as shown:
        yield iter(shown)


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A context with a function that shows how many items of the total are done, on stderr if that is a terminal."""
    stream = terminal(sys.stderr)
    if _is_set(_QUIET) or not stream.isatty():
        yield lambda _done, _of: None
        return
    with click.progressbar(length=1, label="running", file=stream) as bar:

        def show(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        yield show


def write_then_show(writes: Iterable[Callable[[], None]], show: Callable[[], None]) -> None:
    """Write the files of a result, and then print it, so that the files do not depend on a reader of stdout.

    Raises:
        LSTMOnnxError: the error for the first file that could not be written; the others are still written, and the
            result is still printed.
    """
    from ..errors import LSTMOnnxError
    from .error_text import print_error

    failed: list[LSTMOnnxError] = []
    for write in writes:
        try:
            write()
        except LSTMOnnxError as error:
            failed.append(error)
    show()
    for further in failed[1:]:
        print_error(further)
    if failed:
        raise failed[0]
