"""``lstm-onnx generate``."""

from __future__ import annotations

from typing import Any

import click

from .child import exit_after_child
from .options import json_option, report, seed_option, state_option
from .params import FILE, by_name, name_pair, onnx_output, option


@click.command()
@click.argument("file", type=FILE)
@option("-o", "--output", type=FILE, required=True, callback=onnx_output, help="The file to write.")
@option(
    "--feed",
    metavar="INPUT=OUTPUT",
    callback=name_pair,
    required=True,
    help="The input that is fed back, and the output of the previous step that it comes from: tokens=logits.",
)
@option(
    "--choose",
    type=click.Choice(["greedy", "sample", "value"]),
    help="greedy: the most likely token; sample: one drawn with the inputs noise and temperature; value: "
    "the output itself.  [default: greedy for tokens, value for numbers]",
)
@option("--top-k", type=click.IntRange(min=1), help="With sample: draw from the K most likely tokens.")
@option("--stop-token", type=click.IntRange(min=0), multiple=True, help="A token that ends a sequence.")
@option(
    "--stop-output", metavar="OUTPUT", help="An output that ends a sequence where it is above --stop-above, or true."
)
@option("--stop-above", type=float, default=0.5, help="Threshold of --stop-output.")
@option("--pad", type=float, help="Value of the output after its sequence has ended.  [default: the stop token, or 0]")
@state_option(
    by_name, "A state input, and the output that is its next value; may be repeated.  [default: FILE's metadata]"
)
@seed_option
@json_option
def generate(
    file: str,
    output: str,
    feed: tuple[str, str],
    pad: float | None,
    states: dict[str, str],
    as_json: bool,
    **options: Any,
) -> None:
    """Turn a single-step ONNX FILE into one that generates whole sequences.

    FILE must have states, such as a file that was exported with explicit states.  One call of the new file gives as
    many steps as its input max_steps says.  Before it is kept, it is compared with FILE in a Python loop.
    """
    from ..generation import make_generating

    exit_after_child(file)
    token = int(pad) if pad is not None and pad.is_integer() else pad
    written = make_generating(file, output, input=feed[0], output=feed[1], pad=token, states=states or None, **options)
    report(written, as_json=as_json)
