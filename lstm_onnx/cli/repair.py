"""``lstm-onnx repair``."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option, report, seed_option
from .params import FILE, option


@click.command()
@click.argument("file", type=FILE)
@option("-o", "--output", metavar="FILE", type=FILE, required=True, help="The file to write.")
@seed_option
@json_option
def repair(file: str, output: str, seed: int, as_json: bool) -> None:
    """Rewrite another tool's ONNX FILE with recurrent operators and states.

    Loops that compute an LSTM, GRU or RNN become that operator, its states become inputs and outputs, and a batch of
    a fixed size is opened.  The new file is run beside FILE before it is kept.
    """
    from ..atomic_io import require_utf8
    from ..repairs import repair as write_repaired

    if output == "-":
        raise click.UsageError("an ONNX file is not written to stdout; name a file with -o")
    if Path(output).suffix.lower() in (".toml", ".safetensors", ".pt", ".pth", ".py"):
        raise click.UsageError(f"-o {output} is not an ONNX file; end it in .onnx")
    require_utf8(output)
    report(write_repaired(file, output, seed=seed), as_json=as_json)
