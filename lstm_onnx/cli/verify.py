"""``lstm-onnx verify``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from .options import json_option, progress, threads_option

if TYPE_CHECKING:
    from ..exporter.source import Source
    from ..parity import Report


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
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the inputs that are drawn.")
@json_option
def verify(
    source: str,
    file: str | None,
    providers: tuple[str, ...],
    threads: int | None,
    precisions: tuple[str, ...],
    mutants: str,
    seed: int,
    as_json: bool,
) -> int:
    """Compare FILE with the PyTorch model SOURCE; without FILE, with a fresh export of it.

    Several providers and precisions are compared one after the other, each with a report of its own.
    """
    import tempfile

    from ..errors import EXIT_FAILED, ConfigError
    from ..exporter.checkpoint import import_torch
    from ..exporter.source import load_source

    if file is not None and precisions:
        raise ConfigError(f"--precision is for fresh exports, and {file} has its own; leave one of them out")
    model_source = load_source(source)
    import_torch("verify compares with it")
    reports = []
    with tempfile.TemporaryDirectory(prefix="lstm-onnx-", ignore_cleanup_errors=True) as folder:
        for exported, path, name in _files(model_source, file, precisions, folder):
            for provider in providers:
                found = _verified(exported, path, provider, threads=threads, seed=seed, mutants=mutants, name=name)
                reports.append(found)
    _show(reports, as_json=as_json)
    return 0 if all(reports) else EXIT_FAILED


def _files(
    source: Source, file: str | None, precisions: tuple[str, ...], folder: str
) -> Iterator[tuple[Source, str, str]]:
    """What is compared: the source, the file's path, and what the report calls it."""
    from pathlib import Path

    from ..parity.precision import in_precision

    if file is not None:
        yield source, file, file
        return
    for precision in precisions or (None,):
        cast = source if precision is None else in_precision(source, precision)
        path = str(Path(folder) / f"{precision or 'model'}.onnx")
        cast.export(path, check=False)
        yield cast, path, f"a fresh export in {precision}" if precision else "a fresh export"


def _verified(
    source: Source, path: str, provider: str, *, threads: int | None, seed: int, mutants: str, name: str
) -> Report:
    from .. import parity
    from ..exporter.source import LSTMSource
    from ..runtime import load

    model = load(path, provider=provider, threads=threads)
    inputs = () if isinstance(source, LSTMSource) else source.inputs
    verification = parity.verification_of(model, source.module(), seed=seed, inputs=inputs)
    with progress(verification.results(), "verifying", verification.planned) as results:
        found = list(results)
    if source.options.lengths and "lengths" not in model.inputs:
        problem = f"{source.name} asks for the input lengths, and the file has none"
        found.append(parity.CaseResult("lengths", error=problem))
    return parity.make_report(verification, found, source=source.name, file=name, mutants=mutants)


def _show(reports: list[Report], *, as_json: bool) -> None:
    """One report as a JSON object, several as a list of them; or each as a table."""
    import json

    if as_json:
        made = [report.to_dict() for report in reports]
        click.echo(json.dumps(made[0] if len(made) == 1 else made, indent=2, allow_nan=False))
    else:
        click.echo("\n\n".join(map(str, reports)))
