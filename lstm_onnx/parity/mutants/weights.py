"""Makes mistakes in a layer's weights: order, orientation, omissions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...onnxgraph.recurrent import INITIAL_C, PEEPHOLES, Port, RecurrentLayer, input_of
from .equivalence import (
    ABSENT,
    APPLIED,
    LARGEST,
    Outcome,
    equivalent,
    same_blocks,
    single_step,
    unread_gates,
    unread_recurrence,
)
from .graph_edit import Edit, set_attribute

_TOO_LARGE = {"float16": 1.5}
"""The factor of weights that are too large, by dtype: it must show in half precision; 1.1 for others."""


def swapped_gates(first: int, second: int, op_type: str, edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Two gates exchanged in W, R and B."""
    if layer.op_type != op_type:
        return ABSENT
    order = list(range(layer.gates))
    order[first], order[second] = order[second], order[first]
    axis = -1 if layer.scan else 1
    ports = _by_gate(layer)
    reason = same_blocks(edit, ports, axis, first, second, layer.gates)
    if reason := reason or unread_gates(edit, layer, first, second):
        return equivalent(reason)
    for port, blocks in ports:
        rows = np.arange(layer.hidden_size)
        blocks_in_order = [start + gate for start in range(0, blocks, len(order)) for gate in order]
        index = np.concatenate([rows + block * layer.hidden_size for block in blocks_in_order])
        edit.insert("Gather", port.value, index, ports=[port], axis=axis)
    return APPLIED


def _by_gate(layer: RecurrentLayer) -> list[tuple[Port, int]]:
    """Each port that reads weights by gate, and its number of blocks; an operator's B has W's, and then R's."""
    if layer.scan:
        wide = layer.gates * layer.directions
        return [*((port, wide) for port in (*layer.W, *layer.B)), *((port, layer.gates) for port in layer.R)]
    return [*((port, layer.gates) for port in (*layer.W, *layer.R)), *((port, layer.gates * 2) for port in layer.B)]


def transposed_recurrent(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """R transposed, gate by gate; in a projected layer only where a gate's block is square."""
    port = layer.R[0]
    array = edit.constant(port.value)
    if layer.scan and (array is None or array.shape[0] != layer.hidden_size):
        return ABSENT
    if layer.hidden_size == 1:
        return equivalent("R is one number a gate")
    if reason := unread_recurrence(edit, layer):
        return equivalent(reason)
    gates, hidden = layer.gates, layer.hidden_size
    if array is not None and array.size <= LARGEST and _is_symmetric(array, layer):
        return equivalent("R is symmetric in each gate")
    split, flat, perm = (layer.directions, gates, hidden, hidden), (layer.directions, -1, hidden), [0, 1, 3, 2]
    if layer.scan:
        split, flat, perm = (hidden, gates, hidden), (hidden, -1), [2, 1, 0]  # type: ignore[assignment]
    turned = edit.node("Transpose", edit.node("Reshape", port.value, np.array(split, np.int64)), perm=perm)
    port.value = edit.node("Reshape", turned, np.array(flat, np.int64))
    return APPLIED


def _is_symmetric(array: np.ndarray, layer: RecurrentLayer) -> bool:
    """Whether each gate's square block of R is its own transpose, as of an identity."""
    hidden = layer.hidden_size
    blocks = array.reshape(hidden, -1, hidden).swapaxes(0, 1) if layer.scan else array.reshape(-1, hidden, hidden)
    return np.array_equal(blocks, blocks.swapaxes(1, 2))


def bias(keep: tuple[float, float], edit: Edit, layer: RecurrentLayer) -> Outcome:
    """The input's and the recurrent bias, each times a factor; a Scan has only their sum."""
    if not layer.B or (layer.scan and keep[0] != keep[1]):
        return ABSENT
    port = layer.B[0]
    array = edit.constant(port.value)
    if array is None:
        return ABSENT
    half = np.repeat(np.array(keep), layer.gates * layer.hidden_size)
    factor = np.full(array.shape[-1], keep[0]) if layer.scan else half
    if np.array_equal(array * factor, array):
        return equivalent("that bias is zeros")
    edit.insert("Mul", port.value, factor.astype(array.dtype), ports=[port])
    return APPLIED


def too_large(
    ports: Callable[[RecurrentLayer], tuple[Port, ...]], edit: Edit, layer: RecurrentLayer, *, recurrent: bool = False
) -> Outcome:
    """Weights 10 % too large, or 50 % in half precision; in an RNN, those of every other unit are too small instead."""
    if recurrent and (reason := unread_recurrence(edit, layer)):
        return equivalent(reason)
    constants = _constants(edit, ports(layer))
    if not constants:
        return ABSENT
    if not any(array.any() for _, array in constants):
        return equivalent("these weights are zeros")
    for port, array in constants:
        by: Any = _TOO_LARGE.get(array.dtype.name, 1.1)
        if layer.op_type == "RNN":  # not all alike: with ReLU, a norm after it would remove the factor
            units = np.arange(layer.hidden_size)[:, None]
            by = np.where(units % 2, 1 / by, by)
        edit.insert("Mul", port.value, np.array(by, array.dtype), ports=[port])
    return APPLIED


def exchanged_directions(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """All weights of the two directions exchanged."""
    if layer.directions != 2:
        return ABSENT
    if layer.scan:
        width = layer.gates * layer.hidden_size
        turned = np.concatenate([np.arange(width) + width, np.arange(width)])
        for port in (*layer.W, *layer.B):
            edit.insert("Gather", port.value, turned, ports=[port], axis=-1)
        for pair in (layer.R, layer.W_hr, layer.Rb):
            if pair:
                pair[0].value, pair[1].value = pair[1].value, pair[0].value
        return APPLIED
    for port in (*layer.W, *layer.R, *layer.B, *_peepholes(layer)):
        edit.insert("Gather", port.value, np.array([1, 0]), ports=[port], axis=0)
    return APPLIED


def _peepholes(layer: RecurrentLayer) -> list[Port]:
    has = layer.node.op_type == "LSTM" and input_of(layer.node, PEEPHOLES)
    return [Port(layer.node, PEEPHOLES)] if has else []


def _constants(edit: Edit, ports: Iterable[Port]) -> list[tuple[Port, np.ndarray]]:
    """Ports with the weights that they read; none where one of them is not constant."""
    found = [(port, edit.constant(port.value)) for port in ports]
    known = [(port, array) for port, array in found if array is not None]
    return known if len(known) == len(found) else []


def dropped_peepholes(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Gates that do not see the cell state."""
    for port, array in _constants(edit, _peepholes(layer)):
        hidden = layer.hidden_size
        if single_step(edit, layer) and edit.is_zero(input_of(layer.node, INITIAL_C)):
            array = array[:, hidden : 2 * hidden]  # the input and the forget gate see c = 0
        if not array.any():
            return equivalent("its peepholes are zeros")
        port.value = ""
        return APPLIED
    return ABSENT


def misordered_peepholes(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Peepholes in the order of torch's gates: input, forget, output."""
    for port, array in _constants(edit, _peepholes(layer)):
        hidden = layer.hidden_size
        rows = np.concatenate([np.arange(hidden) + block * hidden for block in (0, 2, 1)])
        if np.array_equal(array[:, rows], array):
            return equivalent("the output and the forget gate have the same peepholes")
        edit.insert("Gather", port.value, rows, ports=[port], axis=1)
        return APPLIED
    return ABSENT


def misplaced_reset(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """A GRU whose reset gate acts before the product with R instead of after it, or after it instead of before."""
    if layer.node.op_type != "GRU":
        return ABSENT
    recurrent = edit.constant(layer.R[0].value)
    biases = [edit.constant(port.value) for port in layer.B]
    if recurrent is None or any(array is None for array in biases):
        return ABSENT
    hidden = layer.hidden_size
    no_bias = not any(array[:, -hidden:].any() for array in biases if array is not None)
    diagonal = all(not (block - np.diag(np.diag(block))).any() for block in recurrent[:, -hidden:])
    if no_bias and diagonal:
        return equivalent("R of the new state has no entries off its diagonal")
    if no_bias and (reason := unread_recurrence(edit, layer)):
        return equivalent(reason)
    set_attribute(layer.node, "linear_before_reset", 1 - layer.attributes.get("linear_before_reset", 0))
    return APPLIED


def misordered_projection(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """The rows of W_hr in reverse order."""
    constants = _constants(edit, layer.W_hr or edit.fold(layer)[1])
    if not constants or any(array.size > LARGEST for _, array in constants):
        return ABSENT
    if all(np.array_equal(array[..., ::-1, :], array) for _, array in constants):
        return equivalent("W_hr is the same in reverse order")
    for port, array in constants:
        index = np.arange(array.shape[-2])[::-1]
        edit.insert("Gather", port.value, index, ports=[port], axis=array.ndim - 2)
    return APPLIED
