"""``lstm-onnx repair``."""

from __future__ import annotations

import click

from .child import exit_after_child
from .options import json_option, report, seed_option
from .params import FILE, onnx_output, option


@click.command()
@click.argument("file", type=FILE)
@option("-o", "--output", type=FILE, required=True, callback=onnx_output, help="The file to write.")
@seed_option
@json_option
def repair(file: str, output: str, seed: int, as_json: bool) -> None:
    """Rewrite another tool's ONNX FILE with recurrent operators and states.

    Loops that compute an LSTM, GRU or RNN become that operator, its states become inputs and outputs, and a fixed
    batch becomes dynamic.  Before the new file is kept, it is compared with FILE.
    """
    from ..repairs import repair as write_repaired

    exit_after_child(file)
    report(write_repaired(file, output, seed=seed), as_json=as_json)
