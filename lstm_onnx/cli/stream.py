"""``lstm-onnx stream``."""

from __future__ import annotations

from typing import Any

import click

from .child import exit_after_child
from .options import json_option, report, seed_option, state_option
from .params import FILE, by_name, integer_by_name, onnx_output, option


@click.command()
@click.argument("file", type=FILE)
@option("-o", "--output", type=FILE, required=True, callback=onnx_output, help="The file to write.")
@click.option(
    "--time",
    "times",
    metavar="INPUT=AXIS",
    callback=integer_by_name,
    multiple=True,
    help="The time axis of an input, such as x=1; may be repeated.  [default: FILE's metadata]",
)
@option("--max-delay", type=click.IntRange(min=0), default=0, help="Maximum look-ahead to accept, in steps.")
@option(
    "--chunk",
    type=click.IntRange(min=1),
    help="Make a faster file, which takes only chunks of multiples of this many steps.",
)
@state_option(
    by_name,
    "A state input of FILE, and the output that is its next value, such as h=hn; may be repeated.  "
    "[default: those of its recurrent nodes]",
)
@seed_option
@json_option
def stream(
    file: str, output: str, times: dict[str, int], states: dict[str, str], as_json: bool, **options: Any
) -> None:
    """Convert a whole-sequence ONNX FILE to one that takes chunks.

    Whatever later steps need from earlier ones becomes states.  Before the new file is kept, it is compared with FILE
    on random sequences in chunks of many lengths.
    """
    from ..streaming import make_streaming

    exit_after_child(file)
    report(make_streaming(file, output, time=times or None, states=states or None, **options), as_json=as_json)
