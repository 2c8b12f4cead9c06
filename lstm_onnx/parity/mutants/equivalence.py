"""The outcome of a change to a graph, and proofs that a changed graph computes the same as the right one.

Each proof gives its reason for the report, or "" where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from ...onnxgraph.padding import is_masked
from ...onnxgraph.recurrent import Port, RecurrentLayer
from ...onnxgraph.tensors import attributes_of
from .graph_edit import Edit

LARGEST = 2**24
"""The most elements of a weight that is examined."""


@dataclass(frozen=True)
class Outcome:
    """Whether a mutator changed a model.

    `applied` is False if it does not apply to the model, or if the change is proven to have no effect; then `reason`
    says why.
    """

    applied: bool
    reason: str = ""


APPLIED, ABSENT = Outcome(applied=True), Outcome(applied=False)


def equivalent(reason: str) -> Outcome:
    """The changed model would compute the same as the right one, for this reason."""
    return Outcome(applied=False, reason=reason)


def same_blocks(edit: Edit, ports: Sequence[tuple[Port, int]], axis: int, first: int, second: int, gates: int) -> str:
    """Two gates' blocks are equal in every port; `ports` are with the number of blocks along `axis`."""
    for port, blocks in ports:
        array = edit.constant(port.value)
        if array is None or array.size > LARGEST:
            return ""
        parts = np.split(array, blocks, axis=axis)
        for start in range(0, blocks, gates):
            if not np.array_equal(parts[start + first], parts[start + second]):
                return ""
    return "the two gates have the same weights"


def single_step(edit: Edit, layer: RecurrentLayer) -> str:
    """A layer that is only called on one step has no order in time."""
    return "it is called on one step at a time" if _one_entry(edit, layer.x) else ""


def _one_entry(edit: Edit, value: str, axis: int = 0) -> bool:
    """Whether the size of a value's axis is 1: by its shape, or by the nodes that make a value of unknown shape."""
    node, array = edit.maker(value), edit.constant(value)
    if array is not None:
        return axis < array.ndim and array.shape[axis] == 1
    if edit.size(value, axis) == 1 or node is None:
        return edit.size(value, axis) == 1
    if node.op_type == "Unsqueeze" and len(node.input) == 2:
        axes = edit.constant(node.input[1])
        return axes is not None and axis in axes
    if node.op_type == "Transpose" and (perm := attributes_of(node).get("perm")):
        return _one_entry(edit, node.input[0], perm[axis])
    if node.op_type == "Tile":
        return _repeats_once(edit, node.input[1], axis) and _one_entry(edit, node.input[0], axis)
    return node.op_type == "Reshape" and _keeps_shape(edit, node) and _one_entry(edit, node.input[0], axis)


def _repeats_once(edit: Edit, repeats: str, axis: int) -> bool:
    """Whether a Tile's repeats, put together one by one, are 1 at an axis."""
    node = edit.maker(repeats)
    parts = [] if node is None or node.op_type != "Concat" else list(node.input)
    numbers = [edit.constant(part) for part in parts]
    known = [None if number is None else list(number.shape) for number in numbers]
    shapes = [edit.shapes.get(part) if own is None else own for part, own in zip(parts, known, strict=True)]
    if axis >= len(parts) or any(shape != [1] for shape in shapes):
        return False
    number = numbers[axis]
    return number is not None and number.tolist() == [1]


def _keeps_shape(edit: Edit, node: NodeProto) -> bool:
    """Whether a Reshape's shape is its input's own plus zeros, as in a copy that fails if its input is empty."""
    total = edit.maker(node.input[1])
    if total is None or total.op_type != "Add":
        return False
    shape, zero = (edit.maker(name) for name in total.input)
    return (
        shape is not None
        and shape.op_type == "Shape"
        and not shape.attribute
        and shape.input[0] == node.input[0]
        and zero is not None
        and zero.op_type == "Gather"
        and edit.is_zero(zero.input[0])
    )


def unread_recurrence(edit: Edit, layer: RecurrentLayer) -> str:
    """R has no effect: there is one step from h = 0, or R itself is zero."""
    if all(edit.is_zero(port.value) for port in layer.R):
        return "R is zeros"
    if single_step(edit, layer) and all(edit.is_zero(port.value) for port in layer.initial("h")):
        return "it is called on one step at a time, from h = 0"
    return ""


def unread_gates(edit: Edit, layer: RecurrentLayer, first: int, second: int) -> str:
    """Neither of two gates of an LSTM has an effect: f is multiplied with c = 0, and nothing reads o tanh(c)."""
    if layer.op_type != "LSTM":
        return ""
    unread = set()
    if single_step(edit, layer) and all(edit.is_zero(port.value) for port in layer.initial("c")):
        unread.add("f")
    recurrent = not single_step(edit, layer) and not all(edit.is_zero(port.value) for port in layer.R)
    if not recurrent and not any(map(edit.used, (*layer.y, *(port.value for port in layer.final("h"))))):
        unread.add("o")
    return "neither gate is read" if {"iofc"[first], "iofc"[second]} <= unread else ""


def unread_reverse(edit: Edit, layer: RecurrentLayer) -> str:
    """Of a Scan with two directions, no output depends on the reverse one."""
    if not layer.scan or layer.directions != 2:
        return ""
    return "" if set(layer.node.output[1::2]) & edit.live else "no output depends on the reverse direction"


def unread_h(edit: Edit, layer: RecurrentLayer) -> str:
    """Only R reads the initial h of an LSTM."""
    if all(edit.is_zero(port.value) for port in layer.initial("h")):
        return "it starts from h = 0"
    return "R is zeros" if layer.op_type != "GRU" and all(edit.is_zero(port.value) for port in layer.R) else ""


def unread_padding(edit: Edit, layer: RecurrentLayer) -> str:
    """Without lengths, a forward layer's output differs only past a sequence's end, where nothing reads it."""
    if layer.scan or layer.direction != "forward":
        return ""
    finals = [port.value for state in ("h", "c") for port in layer.final(state)]
    assert layer.lengths is not None  # noqa: S101 - the caller's condition
    if edit.live & set(finals):
        return ""
    masked = all(is_masked(edit, value, layer.lengths.value) for value in layer.y if value)
    return "its output past a sequence's end is never read" if masked else ""
