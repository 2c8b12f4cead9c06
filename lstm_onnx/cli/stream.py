"""``lstm-onnx stream``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, report, seed_option
from .params import FILE, option


@click.command()
@click.argument("file", type=FILE)
@option("-o", "--output", metavar="FILE", type=FILE, required=True, help="The file to write.")
@click.option(
    "--time",
    "times",
    metavar="INPUT=AXIS",
    multiple=True,
    help="The time axis of an input, such as x=1; may be repeated.  [default: FILE's metadata]",
)
@option(
    "--max-delay",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Maximum look-ahead to accept, in steps.",
)
@option(
    "--chunk",
    type=click.IntRange(min=1),
    help="Chunks will have a multiple of N steps, which makes the file faster.",
)
@click.option(
    "--state",
    "pairs",
    metavar="INPUT=OUTPUT",
    multiple=True,
    help="A state input of FILE, and the output that is its next value, such as h=hn; may be repeated.  "
    "[default: those of its recurrent nodes]",
)
@seed_option
@json_option
def stream(
    file: str,
    output: str,
    times: tuple[str, ...],
    max_delay: int,
    chunk: int | None,
    pairs: tuple[str, ...],
    seed: int,
    as_json: bool,
) -> None:
    """Convert a whole-sequence ONNX FILE to one that takes chunks.

    What later steps need of earlier ones becomes states.  The new file is compared with FILE, on drawn sequences in
    chunks of many lengths, before it is kept.
    """
    from ..atomic_io import require_utf8
    from ..streaming import make_streaming

    if output == "-":
        raise click.UsageError("an ONNX file is not written to stdout; name a file with -o")
    if Path(output).suffix.lower() in (".toml", ".safetensors", ".pt", ".pth", ".py"):
        raise click.UsageError(f"-o {output} is not an ONNX file; end it in .onnx")
    require_utf8(output)
    axes = _axes(times) if times else None
    states = _states(pairs) if pairs else None
    result = make_streaming(file, output, time=axes, max_delay=max_delay, chunk=chunk, states=states, seed=seed)
    report(result, as_json=as_json)


def _states(pairs: tuple[str, ...]) -> dict[str, str]:
    states: dict[str, str] = {}
    for text in pairs:
        name, equals, output = text.partition("=")
        if not equals or not name or not output:
            raise click.UsageError(f"--state {text} is not INPUT=OUTPUT, such as h=hn")
        if name in states:
            raise click.UsageError(f"--state was given twice for {name}; give it once")
        states[name] = output
    return states


def _axes(times: tuple[str, ...]) -> dict[str, int]:
    axes: dict[str, int] = {}
    for text in times:
        name, equals, axis = text.rpartition("=")
        if not equals or not name or not axis.lstrip("-").isdecimal():
            raise click.UsageError(f"--time {text} is not INPUT=AXIS, such as x=1")
        if name in axes:
            raise click.UsageError(f"--time was given twice for {name}; give it once")
        axes[name] = int(axis)
    return axes
