"""Layers whose states stay at zero over the padding of a sequence, so that their lengths have no effect on them."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from ...onnxgraph.padding import is_within, root
from ...onnxgraph.recurrent import RecurrentLayer
from ...onnxgraph.tensors import attributes_of
from .graph_edit import Edit

_ZERO_AT_ZERO = frozenset({"Identity", "Cast", "Dropout", "Relu", "Tanh"})
"""Operators of one input, element by element, that are 0 at 0."""


def stays_at_zero(edit: Edit, layer: RecurrentLayer) -> bool:
    """Whether a layer's states and outputs are zero as long as it runs over nothing but padding, from its start.

    Its input is zero past each sequence's end, it has no bias, and it starts from zeros: then the candidate is
    tanh(0) = 0, and whatever the gates are, c and h stay 0.
    """
    if layer.lengths is None or not _zero_activations(layer):
        return False
    starts = [port.value for state in ("h", "c") for port in layer.initial(state)]
    if not all(map(edit.is_zero, (*starts, *(port.value for port in (*layer.B, *layer.Rb))))):
        return False
    return _zero_past_end(edit, layer.x, 0, 1, layer)


def _zero_activations(layer: RecurrentLayer) -> bool:
    names = layer.attributes.get("activations")
    if layer.scan or names is None:
        return True
    return layer.op_type == "RNN" and {bytes(name).lower() for name in names} <= {b"tanh", b"relu"}


def _zero_past_end(edit: Edit, value: str, time: int, batch: int, layer: RecurrentLayer) -> bool:
    """Whether a value with these axes of time and batch is zero past the ends of the sequences of `layer`."""
    if any(value in below.y and _same_lengths(edit, below, layer) for below in edit.layers):
        return (time, batch) == (0, 2)
    node = edit.maker(value)
    if node is None or not node.input:
        return False
    source, op = str(node.input[0]), node.op_type
    attributes = attributes_of(node)
    if op in _ZERO_AT_ZERO:
        return _zero_past_end(edit, source, time, batch, layer)
    if op == "Transpose" and "perm" in attributes:
        perm = [int(axis) for axis in attributes["perm"]]
        return _zero_past_end(edit, source, perm[time], perm[batch], layer)
    if op == "Squeeze" and len(node.input) == 2:
        return _zero_before_squeeze(edit, node, time, batch, layer)
    if op == "Reshape":
        # Sizes of 0 are copied: up to the later of the two axes, it changes nothing.
        shape = edit.constant(node.input[1])
        copied = shape is not None and not attributes.get("allowzero") and not shape[: max(time, batch) + 1].any()
        return copied and _zero_past_end(edit, source, time, batch, layer)
    features = edit.shapes.get(source)
    if features is None or len(features) - 1 in (time, batch):
        return False
    if op == "MatMul":  # along the features
        weights = edit.constant(node.input[1])
        right = weights is not None and weights.ndim == 2 and bool(np.isfinite(weights).all())
        return right and _zero_past_end(edit, source, time, batch, layer)
    along = int(attributes.get("axis", 0)) % len(features)
    if op not in ("Concat", "Split") or along in (time, batch):
        return False
    parts = node.input if op == "Concat" else [source]
    return all(_zero_past_end(edit, str(part), time, batch, layer) for part in parts)


def _zero_before_squeeze(edit: Edit, node: NodeProto, time: int, batch: int, layer: RecurrentLayer) -> bool:
    removed, source = edit.constant(node.input[1]), str(node.input[0])
    if removed is None or not edit.shapes.get(source):
        return False
    for axis in sorted(int(one) % len(edit.shapes[source]) for one in removed.reshape(-1)):
        time, batch = time + (axis <= time), batch + (axis <= batch)
    return _zero_past_end(edit, source, time, batch, layer)


def _same_lengths(edit: Edit, one: RecurrentLayer, other: RecurrentLayer) -> bool:
    """Whether two layers have the lengths of the same value, each as an operator's input or as the mask of a Scan."""
    sources = [_lengths_of(edit, layer) for layer in (one, other)]
    return sources[0] == sources[1] != ""


def _lengths_of(edit: Edit, layer: RecurrentLayer) -> str:
    if layer.lengths is None:
        return ""
    value = layer.lengths.value
    if not layer.scan:
        return root(edit, value)
    less = edit.maker(value)
    lengths = root(edit, less.input[1]) if less is not None and less.op_type == "Less" else ""
    return lengths if lengths and is_within(edit, value, lengths) else ""
