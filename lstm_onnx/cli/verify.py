"""``lstm-onnx verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from .options import json_option, note, progress, threads_option
from .reports import check_files, file_options, show

if TYPE_CHECKING:
    from ..parity import ParityReport
    from ..parity.golden_file import Golden
    from ..parity.user_data import UserData

_WITH_SOURCE = {
    "file": "a second FILE",
    "precisions": "--precision",
    "data": "--data",
    "columns": "--columns",
    "seed": "--seed",
}
"""What says nothing where a golden file is compared with, by the parameter's name."""


@click.command()
@click.argument("source")
@click.argument("file", required=False)
@click.option(
    "--provider",
    "providers",
    type=click.Choice(["auto", "cpu", "cuda"]),
    multiple=True,
    default=("auto",),
    show_default="auto",
    help="Where to run; cuda means CUDA or an error; may be given more than once.",
)
@threads_option
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["float16", "float32", "float64"]),
    multiple=True,
    help="Export SOURCE in this precision, and compare that; may be given more than once.  [default: SOURCE's own]",
)
@click.option(
    "--mutants",
    type=click.Choice(["none", "quick", "all"]),
    default="quick",
    show_default=True,
    help="How many wrong copies of the file are tried, each of which must be rejected.",
)
@click.option("--data", metavar="DATA", help="Compare on these inputs as well, in any format that run reads.")
@click.option("--columns", metavar="A,B,...", help="The columns of a --data table that are the features.")
@click.option(
    "--golden",
    metavar="OUT.npz",
    help="Store what was compared, once it passed; beside a FILE alone, compare it with that, without PyTorch.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the inputs that are drawn.")
@file_options
@json_option
def verify(
    source: str,
    file: str | None,
    providers: tuple[str, ...],
    threads: int | None,
    precisions: tuple[str, ...],
    mutants: str,
    data: str | None,
    columns: str | None,
    golden: str | None,
    seed: int,
    junit: str | None,
    html: str | None,
    as_json: bool,
) -> int:
    """Compare FILE with the PyTorch model SOURCE; without FILE, with a fresh export of it.

    Several providers and precisions are compared one after the other, each with a report of its own.

    With only a FILE and --golden, the file is compared with what an earlier run stored.
    """
    from dataclasses import replace

    from ..atomic_io import require_apart
    from ..errors import EXIT_FAILED, ConfigError

    check_files(junit, html)
    require_apart([junit, html], [source, file, data, golden])
    if source.lower().endswith(".onnx"):
        reports = [
            replace(report, command=_command_line())
            for report in _against_golden(source, golden, providers, threads, mutants)
        ]
        show(reports, as_json=as_json, junit=junit, html=html)
        return 0 if all(reports) else EXIT_FAILED
    from ..exporter.dependencies import import_torch
    from ..exporter.sources.source import load_source, source_files

    user_data = _data(data, columns)
    if golden is not None:
        _check_golden(golden, precisions)
    require_apart([junit, html, golden], [*source_files(source), file, data])
    if file is not None and precisions:
        raise ConfigError(f"--precision is for fresh exports, and {file} has its own; leave one of them out")
    model_source = load_source(source)
    import_torch("verify compares with it")
    from ..parity.verification import verify_all

    verified = verify_all(
        model_source,
        file,
        providers=providers,
        precisions=precisions,
        threads=threads,
        seed=seed,
        mutants=mutants,
        data=user_data or (),
        progress=progress,
    )
    reports = [replace(done.report, command=_command_line()) for done in verified]

    def store() -> None:
        if golden is not None:
            _store(golden, verified[0].golden, passed=all(reports))

    show(reports, as_json=as_json, junit=junit, html=html, more=store)
    return 0 if all(reports) else EXIT_FAILED


def _data(path: str | None, columns: str | None) -> UserData | None:
    if path is None:
        if columns:
            raise click.UsageError("--columns goes with --data that is a table")
        return None
    from ..parity.user_data import read

    return read(path, columns=[name.strip() for name in columns.split(",")] if columns else None)


def _check_golden(path: str, precisions: tuple[str, ...]) -> None:
    """Before there is anything to store."""
    from ..atomic_io import require_writable
    from ..parity.golden_file import require_name

    if len(precisions) > 1:
        raise click.UsageError("--golden is of one file; leave one --precision")
    require_writable(require_name(path))


def _store(path: str, golden: Golden, *, passed: bool) -> None:
    from ..parity.golden_file import write

    if passed:
        write(path, golden)
        note(f"wrote {path}: {len(golden.cases)} cases")
    else:
        note(f"{path} was not written, since the verification did not pass")


def _against_golden(
    path: str, golden: str | None, providers: tuple[str, ...], threads: int | None, mutants: str
) -> list[ParityReport]:
    if golden is None:
        raise click.UsageError(f"{path} is a FILE; name the SOURCE to compare it with before it, or --golden")

    def given(parameter: str) -> bool:
        return click.get_current_context().get_parameter_source(parameter) == ParameterSource.COMMANDLINE

    for parameter, option in _WITH_SOURCE.items():
        if given(parameter):
            raise click.UsageError(f"{option} goes with a SOURCE, and {path} is compared with what {golden} holds")
    from ..parity.golden import verify_golden

    level = mutants if given("mutants") else "none"  # they need onnx, which what only runs a model does not
    return [verify_golden(path, golden, provider=each, threads=threads, mutants=level) for each in providers]


def _command_line() -> str:
    """The command line, as a shell would take it."""
    import shlex

    return shlex.join(["lstm-onnx", *(click.get_current_context().obj or [])])
