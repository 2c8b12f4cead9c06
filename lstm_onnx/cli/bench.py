"""``lstm-onnx bench``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from .options import is_given, json_option, note, progress_note, provider_options, report, seed_option, write_then_show
from .params import FILE, NumberRange, option

_WITHOUT_HIDDEN_SIZES = {
    "cases": "--case",
    "provider": "--provider",
    "threads": "--threads",
    "seconds": "--seconds",
    "seed": "--seed",
}
"""Parameters that --hidden-sizes does not use, and their options."""
_CASES = ("step", "chunk", "stream", "batch", "pool", "map", "sequence", "generate")


@click.command()
@click.argument("source", type=FILE)
@option(
    "--case",
    "cases",
    multiple=True,
    type=click.Choice(_CASES),
    help="Time only this case; may be repeated.  [default: all that apply]",
)
@provider_options
@option("--rounds", type=click.IntRange(min=1), help="Maximum number of samples per candidate.  [default: 15]")
@option(
    "--seconds",
    type=NumberRange(min=0, min_open=True),
    help="Approximate time limit; at least three rounds are run.  [default: 60]",
)
@option("--plot", type=FILE, help="Also plot the ratios into FILE, a .png or .svg.")
@option(
    "--hidden-sizes",
    is_flag=True,
    help="Instead, time one step of LSTMs with SOURCE's num_layers and hidden sizes of 32 to 2048: in float32, in "
    "int8 by each kernel, and by PyTorch's own dynamic int8.  SOURCE is a bare LSTM.",
)
@seed_option
@json_option
def bench(
    source: str, rounds: int | None, plot: str | None, hidden_sizes: bool, as_json: bool, **settings: Any
) -> None:
    """Compare the speed of PyTorch, plain ONNX Runtime and lstm-onnx.

    SOURCE is that of export.  The candidates take turns on the same inputs, cores and threads; results are ratios
    with the quartiles over all rounds.

    Cases: step (one time step), chunk (16 steps of a stream), stream (a sequence of 100 steps in chunks), batch (8
    sequences of 50 steps), pool (64 streams, one step each), map (128 sequences of 2 to 400 steps); for a file with a
    Scan also sequence (one sequence of 100 steps); for a model with [generate] only generate (200 steps).
    """
    from ..atomic_io import require_apart
    from ..bench.plot import check_plot
    from ..exporter.sources.source import load_source, source_files

    if hidden_sizes:
        for parameter, name in _WITHOUT_HIDDEN_SIZES.items():
            if is_given(parameter):
                raise click.UsageError(f"--hidden-sizes times one thread of the CPU, without {name}; leave it out")
    if plot is not None:
        check_plot(plot)
        require_apart([plot], source_files(source))
    model = load_source(source)
    result: Any
    write_plot: Callable[[Any, str], None]
    if hidden_sizes:
        from ..bench.hidden_sizes import ROUNDS, compare_hidden_sizes
        from ..bench.hidden_sizes import write_hidden_sizes_plot as write_plot

        spec = getattr(model, "spec", None)
        if spec is None:
            raise click.UsageError(f"--hidden-sizes is for a bare LSTM, but {source} is a module")
        result = compare_hidden_sizes(spec.num_layers, rounds=rounds or ROUNDS, say=progress_note)
    else:
        from ..bench import Settings, compare
        from ..bench.plot import write_plot

        result = compare(model, Settings(rounds=rounds, **settings), say=progress_note)

    def draw() -> None:
        if plot is not None:
            write_plot(result, plot)
            note(f"wrote {plot}")

    write_then_show([draw], lambda: report(result, as_json=as_json))
