"""``lstm-onnx bench``."""

from __future__ import annotations

import click

from .options import json_option, note, provider_options, report, write_then_show

_CASES = ("step", "chunk", "batch", "pool", "map", "memory", "start")


@click.command()
@click.argument("source")
@click.option(
    "--case", "cases", multiple=True, type=click.Choice(_CASES), help="Only these.  [default: all that apply]"
)
@click.option(
    "--grid", type=click.Choice(["quick", "full"]), default="quick", show_default=True, help="How many sizes."
)
@provider_options
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Samples of each contender, at most.  [default: 15, full 31]"
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="About how long the timing takes; three rounds are done in any case.  [default: 60, full 600]",
)
@click.option("--plot", metavar="FILE", help="Draw the ratios into FILE, a .png or .svg.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For the inputs that are drawn.")
@json_option
def bench(
    source: str,
    cases: tuple[str, ...],
    grid: str,
    provider: str,
    threads: int | None,
    rounds: int | None,
    seconds: float | None,
    plot: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Time PyTorch, plain ONNX Runtime and this runtime side by side in one run, as ratios.

    SOURCE is a model's .toml or package.module:callable.  All contenders take turns on the same inputs,
    cores and threads.  A ratio's quartiles are those of the rounds; the limit is that of the
    machine's measured matrix products and memory bandwidth.
    """
    import sys

    from ..atomic_io import require_apart
    from ..bench import Settings, compare
    from ..bench.plot import check_plot, write_plot
    from ..exporter.sources.source import load_source, source_files

    if plot is not None:
        check_plot(plot)
        require_apart([plot], source_files(source))
    settings = Settings(cases, grid, provider, threads, rounds, seconds, seed)
    result = compare(load_source(source), settings, say=note if sys.stderr.isatty() else lambda _: None)

    def draw() -> None:
        if plot is not None:
            write_plot(result, plot)
            note(f"wrote {plot}")

    write_then_show([draw], lambda: report(result, as_json=as_json))
