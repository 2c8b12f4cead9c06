"""Decides which nodes of a graph become int8, and why others stay float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from ..onnxgraph import attributes_of, is_default
from ..onnxgraph.recurrent import DEFAULT_ACTIVATIONS, GATES, PEEPHOLES, activations_of, direction_of, input_of
from .recurrent import Layer
from .weights import Weights

ACTIVATIONS = ("Sigmoid", "Tanh", "Relu")
"""Activations without parameters."""
LEAST_WEIGHTS = 1024
"""Smaller matrices stay float32: they are cheap, and their products are faster without scales."""
Constant = Callable[[str], np.ndarray | None]
"""The content of a value that is constant in the file; None for others."""


def read_recurrent(node: NodeProto, constant: Constant) -> Layer | str:
    """The layer of an LSTM, GRU or RNN operator, or why it stays float32."""
    w, r = constant(input_of(node, 1)), constant(input_of(node, 2))
    if w is None or r is None:
        return "its weights are computed"
    if w.dtype != np.float32:
        return f"its weights are {w.dtype}"
    attributes = attributes_of(node)
    directions, gates, hidden = (w.shape or (0,))[0], GATES[node.op_type], (r.shape or (0,))[-1]
    if w.ndim != 3 or r.shape != (directions, gates * hidden, hidden) or w.shape[1] != gates * hidden:
        return f"its weights have shapes {w.shape} and {r.shape}"
    bias = constant(input_of(node, 3)) if input_of(node, 3) else np.zeros((directions, 2 * gates * hidden), np.float32)
    if bias is None:
        return "its biases are computed"
    if bias.shape != (directions, 2 * gates * hidden):
        return f"its biases have shape {bias.shape}"
    peepholes = constant(input_of(node, PEEPHOLES)) if input_of(node, PEEPHOLES) and node.op_type == "LSTM" else None
    if input_of(node, PEEPHOLES) and (peepholes is None or peepholes.shape != (directions, 3 * hidden)):
        return "its peepholes are computed"
    if not all(np.isfinite(array).all() for array in (w, r, bias, peepholes) if array is not None):
        return "a weight is not finite"
    direction = direction_of(node)
    if {"forward": 1, "reverse": 1, "bidirectional": 2}.get(direction) != directions:
        return f"its weights are for {directions} directions, but its direction is {direction}"
    for name in ("clip", "input_forget", "layout"):
        if attributes.get(name):
            return f"it has {name} = {attributes[name]}"
    default = [name.capitalize() for name in DEFAULT_ACTIVATIONS[node.op_type]]
    functions = activations_of(node) or default * directions
    functions = [{name.lower(): name for name in ACTIVATIONS}.get(item.lower(), item) for item in functions]
    if len(functions) != len(default) * directions or not set(functions) <= set(ACTIVATIONS):
        return f"its activations are {', '.join(functions)}"
    size = len(default)
    outputs = [*node.output, "", "", ""]
    return Layer(
        name=node.name,
        op_type=node.op_type,
        W=w,
        R=r,
        B=bias,
        weights=(node.input[1], node.input[2]),
        x=node.input[0],
        lengths=input_of(node, 4),
        h0=input_of(node, 5),
        c0=input_of(node, 6) if node.op_type == "LSTM" else "",
        y=outputs[0],
        hn=outputs[1],
        cn=outputs[2] if node.op_type == "LSTM" else "",
        reverse=(False, True) if directions == 2 else (direction == "reverse",),
        activations=tuple(tuple(functions[at * size : (at + 1) * size]) for at in range(directions)),
        reset_after=bool(attributes.get("linear_before_reset")),
        P=peepholes,
    )


def linear_weight(node: NodeProto, constant: Constant) -> np.ndarray | None:
    """The weight of a MatMul or Gemm with a float32 matrix that is large enough; None for other nodes."""
    if node.op_type not in ("MatMul", "Gemm") or not is_default(node.domain) or len(node.input) < 2:
        return None
    if node.op_type == "Gemm" and attributes_of(node).get("transA"):
        return None
    return _matrix(constant(node.input[1]))


def why_not_linear(node: NodeProto, weights: Weights) -> str:
    """Why a MatMul or Gemm by a constant matrix stays float32; "" for other nodes and for small ones."""
    if node.op_type not in ("MatMul", "Gemm") or not is_default(node.domain) or len(node.input) < 2:
        return ""
    left, right = weights(node.input[0]), weights(node.input[1])
    if right is None:
        by = weights.computing(node.input[1])
        if by:
            return f"its weights are computed, by {by}"
        large = left is not None and left.ndim >= 2 and left.size >= LEAST_WEIGHTS
        return "its weights are on its left" if large else ""
    if left is not None or right.ndim < 2 or right.size < LEAST_WEIGHTS:
        return ""
    if right.dtype != np.float32:
        return f"its weights are {right.dtype}"
    if right.ndim > 2:
        return f"its weights have shape {right.shape}"
    return "it has transA = 1" if np.isfinite(right).all() else "a weight is not finite"


def embedding_table(node: NodeProto, constant: Constant) -> np.ndarray | None:
    """The table of a Gather of rows of a float32 matrix that is large enough; None for other nodes."""
    if node.op_type != "Gather" or not is_default(node.domain) or attributes_of(node).get("axis", 0):
        return None
    return _matrix(constant(node.input[0]))


def _matrix(array: np.ndarray | None) -> np.ndarray | None:
    if array is None or array.ndim != 2 or array.dtype != np.float32 or array.size < LEAST_WEIGHTS:
        return None
    return array if np.isfinite(array).all() else None
