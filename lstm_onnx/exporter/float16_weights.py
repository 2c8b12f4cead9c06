"""Weights that are stored as float16 and used as float32, by a Cast of each.

ONNX Runtime computes a Cast of a constant once, when it loads the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from ..onnxgraph import nodes_of

LEAST_NUMBERS = 256
"""Smaller weights stay float32: a Cast would take about as many bytes as they save."""
_LEAST = 2.0**-14
"""If all numbers of a matrix are below this, float16 keeps fewer of their digits, and below 2**-25 none."""
SUFFIX = "/float16"
"""The end of the name of a weight's float16 form."""


def with_float16_weights(
    model: ModelProto, initializers: Mapping[str, np.ndarray]
) -> tuple[ModelProto, dict[str, np.ndarray], tuple[str, ...]]:
    """A copy of a model that stores its matrices and tables as float16; biases and other vectors stay float32.

    Args:
        model: without its initializers.
        initializers: by name.

    Returns:
        The model, its initializers, and notes on matrices that stay float32, whose numbers float16 cannot hold.
    """
    # The biases of these operators have the shape of a matrix.
    recurrent = [node for node in nodes_of(model.graph.node) if node.op_type in ("LSTM", "GRU", "RNN")]
    biases = {name for node in recurrent for name in node.input[3:4]}
    stored: dict[str, np.ndarray] = {}
    casts: list[NodeProto] = []
    kept: dict[str, list[str]] = {}
    for name, array in initializers.items():
        if name in biases or not _is_matrix(array):
            stored[name] = array
            continue
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16)
        if why := _unfit(array, rounded):
            stored[name] = array
            kept.setdefault(why, []).append(name)
            continue
        stored[name + SUFFIX] = rounded
        casts.append(
            helper.make_node("Cast", [name + SUFFIX], [name], name=f"{name}{SUFFIX}/Cast", to=TensorProto.FLOAT)
        )
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    changed.graph.node.extend([*casts, *model.graph.node])
    return (
        changed,
        stored,
        tuple(f"{', '.join(names)}: stays float32, since float16 {why}" for why, names in kept.items()),
    )


def _unfit(array: np.ndarray, rounded: np.ndarray) -> str:
    """What float16 holds, where that is not these numbers; "" where they are only rounded."""
    if not np.array_equal(np.isinf(rounded), np.isinf(array)) or 0 < np.abs(array).max() < _LEAST:
        return "holds numbers up to 65504 and from 6e-5 on"
    if np.array_equal(array, np.trunc(array)) and not np.array_equal(array, rounded):
        return "holds whole numbers up to 2048"  # those of steps or of rows, say, and no weights
    return ""


def _is_matrix(array: np.ndarray) -> bool:
    return array.dtype == np.float32 and array.size >= LEAST_NUMBERS and sum(size > 1 for size in array.shape) >= 2
