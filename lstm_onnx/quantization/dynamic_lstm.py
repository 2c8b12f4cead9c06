"""Writes an LSTM as ONNX Runtime's DynamicQuantizeLSTM, and emulates its arithmetic.

Weights have 7 bits and a scale for each gate's feature, as in `arithmetic`: with 8 bits, CPUs without VNNI saturate.
Their inputs have 8 bits and a shared scale: for x, one for all steps and sequences of a call; for h, one for all
sequences of a step.  So a result depends on the whole batch, on padding, on chunks and on the number of threads.

The operator would hide a NaN or an infinity, or spread it to every sequence through the scale.  So such numbers become
zeros in its inputs, and NaN is added to the results that depend on them.
"""

from __future__ import annotations

import numpy as np

from ..onnxgraph.builder import valid_steps
from ..onnxgraph.nan_marks import final_mark, step_marks
from .arithmetic import QuantizedWeight
from .kernels import CONTRIB, DYNAMIC_QUANTIZE_LSTM
from .products import Graph
from .recurrent import Layer, add_zeros, direction_nodes, direction_outputs

_LARGEST = 255


def quantize_all(values: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Finite numbers as int64 integers with one scale, minus their zero point, and the scale."""
    values = values.astype(np.float32)
    least, largest = np.float32(values.min(initial=0.0)), np.float32(values.max(initial=0.0))
    if least == largest:
        return np.zeros(values.shape, np.int64), np.float32(1)
    scale = np.float32(np.float32(largest - least) / np.float32(_LARGEST))
    zero_point = int(np.rint(np.clip(np.float32(-least / scale), 0, _LARGEST)))
    integers = np.rint((values / scale).astype(np.float32)) + zero_point
    return np.clip(integers, 0, _LARGEST).astype(np.int64) - zero_point, scale


def batch_product(rows: np.ndarray, weight: QuantizedWeight, dtype: type = np.float64) -> np.ndarray:
    """The product ``(..., out)`` of all rows ``(..., in)`` of a batch: exact integers, scaled in `dtype`."""
    integers, scale = quantize_all(rows)
    total: np.ndarray = (integers.astype(np.float64) @ weight.integers.astype(np.float64)).astype(dtype)
    return total * (scale * weight.scales).astype(np.float32).astype(dtype)


def add_dynamic_lstm(graph: Graph, layer: Layer) -> None:
    """Add the nodes of an LSTM, which give the operator's outputs under their own names."""
    nodes, name = graph.nodes, layer.name
    valid = valid_steps(nodes, layer.x, layer.lengths, f"{name}/valid") if layer.lengths else ""
    integers, scales, points = [], [], []
    for source, parts in zip(layer.weights, zip(*layer.quantized, strict=True), strict=True):
        scale = np.stack([part.scales for part in parts])
        integers.append(nodes.constant(f"{source}/int8", np.stack([part.integers for part in parts])))
        scales.append(nodes.constant(f"{source}/scale", scale))
        points.append(nodes.constant(f"{source}/zero_point", np.zeros(scale.shape, np.int8)))
    bias = nodes.constant(f"{name}/bias", layer.B)
    peepholes = "" if layer.P is None else nodes.constant(f"{name}/P", layer.P)
    x, x_mark = _finite(graph, layer.x, f"{name}/x")
    zeros = "" if layer.h0 and layer.c0 else add_zeros(graph, layer, len(layer.reverse))
    marks, states = [], []
    for state, value in (("h0", layer.h0), ("c0", layer.c0)):
        finite, mark = _finite(graph, value, f"{name}/{state}") if value else (zeros, "")
        states.append(finite)
        marks += [mark] if mark else []
    state_mark = ""
    if marks:
        state_mark = nodes.one("Add", *marks, name=f"{name}/states_zero") if len(marks) > 1 else marks[0]
    if valid:
        x_mark = nodes.one("Where", valid, x_mark, graph.scalar(0), name=f"{name}/x_valid_zero")
    outputs = direction_outputs(layer, 0)
    functions = [function for direction in layer.activations for function in direction]
    nodes.add(
        DYNAMIC_QUANTIZE_LSTM,
        *(x, *integers, bias, layer.lengths, *states, peepholes),
        *(scales[0], points[0], scales[1], points[1]),
        name=direction_nodes(layer)[0],
        outputs=outputs,
        domain=CONTRIB,
        hidden_size=layer.hidden_size,
        direction="bidirectional" if len(layer.reverse) == 2 else "reverse" if layer.reverse[0] else "forward",
        activations=functions,
    )
    if layer.y:
        marked = step_marks(nodes, name, graph.scalar(0), x_mark, layer.reverse, state_mark, valid)
        nodes.one("Add", outputs[0], marked, name=f"{name}/Y_or_nan", output=layer.y)
    if layer.hn or layer.cn:
        mark = final_mark(nodes, name, x_mark, state_mark)
        for output, value in ((layer.hn, outputs[1]), (layer.cn, outputs[2])):
            if output:
                nodes.one("Add", value, mark, name=f"{value}_or_nan", output=output)


def _finite(graph: Graph, value: str, name: str) -> tuple[str, str]:
    """A value ``(..., features)`` with zeros in place of numbers that are not finite, and a mark.

    The mark ``(..., 1)`` is 0, or NaN for a row with a number that is not finite.
    """
    nodes = graph.nodes
    zeros = nodes.one("Sub", value, value, name=f"{name}_zeros")
    finite = nodes.one("Equal", zeros, graph.scalar(0), name=f"{name}_is_finite")
    mark = graph.reduce("ReduceSum", zeros, f"{name}_zero")
    return nodes.one("Where", finite, value, graph.scalar(0), name=f"{name}_finite"), mark
