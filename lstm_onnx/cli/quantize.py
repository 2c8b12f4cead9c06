"""``lstm-onnx quantize``."""

from __future__ import annotations

from typing import Any

import click

from ..spec import INT8_KERNELS, INT8_LAYERS
from .child import exit_after_child
from .options import data_option, first_record, json_option, report, seed_option
from .params import FILE, onnx_output, option


@click.command()
@click.argument("file", type=FILE)
@option("-o", "--output", type=FILE, required=True, callback=onnx_output, help="The int8 file to write.")
@option(
    "--layers",
    type=click.Choice(INT8_LAYERS),
    default=INT8_LAYERS[0],
    help="all: LSTM, GRU, RNN, Linear and Embedding layers; recurrent: only LSTM, GRU and RNN.",
)
@option(
    "--kernel",
    type=click.Choice(INT8_KERNELS),
    default=INT8_KERNELS[0],
    help="MatMulInteger: each sequence has the same result in any batch, and on any CPU; DynamicQuantizeLSTM: "
    "fastest for large batches, and results depend on the batch; MatMulNBits and, for large layers, MatMulNBits-256: "
    "fastest for single streams on CPUs with VNNI.",
)
@data_option("Inputs for this comparison")
@seed_option
@json_option
def quantize(file: str, output: str, data: str | None, as_json: bool, **options: Any) -> None:
    """Quantize a float32 ONNX FILE to int8.

    Before the file is kept, every int8 layer is compared with the exact result of its arithmetic.
    """
    from ..quantization import quantize as write_quantized

    exit_after_child(file)
    inputs = first_record(file, data)
    report(write_quantized(file, output, inputs=inputs, **options), as_json=as_json)
