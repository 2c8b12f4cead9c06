"""``lstm-onnx export``."""

from __future__ import annotations

from typing import Any

import click

from ..spec import INT8_KERNELS, INT8_LAYERS, PRECISIONS, PROJECTIONS, TARGETS
from .options import json_option, json_result, note, warn
from .params import FILE, option, require_onnx_output
from .streams import say


@click.command()
@click.argument("source", type=FILE)
@option(
    "-o", "--output", type=FILE, help="The file to write.  [default: the name of the .toml or the callable, with .onnx]"
)
@option("--lengths/--no-lengths", default=None, help="Add the input `lengths`.  [default: as SOURCE says, else no]")
@option(
    "--projection",
    type=click.Choice(PROJECTIONS),
    help="Lowering of proj_size and float64.  [default: as SOURCE says, else scan]",
)
@option("--opset", type=int, help="ONNX opset, 14 to 23.  [default: as SOURCE says, else 18]")
@option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Precision of the weights; float16 and int8 keep all else in float32.  "
    "[default: as SOURCE says, else SOURCE's own]",
)
@option(
    "--layers",
    type=click.Choice(INT8_LAYERS),
    help="With int8: quantize all layers, or only LSTM, GRU and RNN.  [default: as SOURCE says, else all]",
)
@option(
    "--kernel",
    type=click.Choice(INT8_KERNELS),
    help="With int8: the matrix multiplication kernel; see lstm-onnx help int8.  "
    "[default: as SOURCE says, else MatMulInteger]",
)
@option(
    "--target",
    type=click.Choice(TARGETS),
    help="The engine or server that FILE is for; refused if no form gives right results there.  [default: as SOURCE "
    "says]",
)
@option(
    "--states",
    type=click.Choice(["zero", "explicit"]),
    help="For modules: keep LSTM states internal (zero) or expose them as inputs and outputs (explicit).  "
    "[default: as SOURCE says, else zero]",
)
@option(
    "--max-delay",
    type=click.IntRange(min=0),
    help="For modules with explicit states: the maximum look-ahead to accept, in steps.  "
    "[default: as SOURCE says, else 0]",
)
@option(
    "--chunk",
    type=click.IntRange(min=1),
    help="For modules with explicit states: make a faster file for chunks of multiples of this many steps only.",
)
@option("--check/--no-check", default=True, help="For modules: compare FILE with PyTorch at other sizes.")
@json_option
def export(source: str, output: str | None, check: bool, as_json: bool, **options: Any) -> None:
    """Export SOURCE to an ONNX file.

    SOURCE is a model's .toml, package.module:callable or file.py:callable.  The callable returns an nn.LSTM, or
    (module, example_inputs) for any other module.
    """
    from pathlib import Path

    from ..atomic_io import is_stdout, require_apart, require_writable
    from ..exporter.sources.source import load_source, source_files
    from ..terminal_text import one_line

    is_file = source.lower().endswith(".toml")
    stem = Path(source).stem if is_file else source.rpartition(":")[2].rpartition(".")[2]
    path = f"{stem}.onnx" if output is None else output
    require_onnx_output(path)
    require_writable(path)
    require_apart([path], source_files(source))
    result = load_source(source).with_options(**options).export(path, check=check)
    for remark in result.notes:
        note(f"note: {remark}")
    print_result = warn if is_stdout(path) else say  # nothing may follow the model on stdout
    if as_json:
        print_result(json_result(result.to_dict()))
        return
    nodes = "1 node" if result.nodes == 1 else f"{result.nodes} nodes"
    print_result(f"{one_line(result.path)}: {nodes}, {result.parameters:,} parameters, {result.num_bytes:,} bytes")
    if result.external_data:
        note(f"the weights exceed 2 GB and are in {result.external_data}; keep both files together")
