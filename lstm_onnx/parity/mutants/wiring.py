"""Mistakes in a layer's connections and attributes: states, time, lengths, shapes, activations, caches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import numpy as np
from onnx import NodeProto

from ...onnxgraph.recurrent import PEEPHOLES, Port, RecurrentLayer, input_of
from ...onnxgraph.tensors import attributes_of
from ...streaming.operators.reductions import REDUCTIONS
from .equivalence import (
    ABSENT,
    APPLIED,
    Outcome,
    equivalent,
    single_step,
    unread_h,
    unread_padding,
    unread_reverse,
)
from .graph_edit import Edit, set_attribute
from .unread import shorter_lengths

Ends = Callable[[RecurrentLayer, str], list[Port]]
_OTHER_ACTIVATIONS = {"LSTM": ["HardSigmoid", "Tanh", "Tanh"], "GRU": ["HardSigmoid", "Tanh"]}
_BAKED = {"batch": 3, "time": 7}
"""Sizes that occur in some cases."""


def backwards(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """A direction that runs in the opposite order."""
    if layer.directions == 2 and not layer.scan:
        return ABSENT
    if reason := single_step(edit, layer):
        return equivalent(reason)
    if layer.scan:
        reason = unread_reverse(edit, layer)
        return equivalent(reason) if reason else _turned(layer, ("scan_input_directions", "scan_output_directions"))
    set_attribute(layer.node, "direction", "forward" if layer.direction == "reverse" else "reverse")
    return APPLIED


def _turned(layer: RecurrentLayer, names: tuple[str, ...]) -> Outcome:
    """A Scan's last direction, reversed."""
    for name in names:
        attribute = next(item for item in layer.node.attribute if item.name == name)
        # Input directions are first those of the gates, then those of the mask.
        for index in range(layer.directions - 1, len(attribute.ints), layer.directions):
            attribute.ints[index] = 1 - attribute.ints[index]
    return APPLIED


def unreversed(name: str, edit: Edit, layer: RecurrentLayer) -> Outcome:
    """A Scan that reads or writes its reverse direction forwards."""
    if not layer.scan or layer.directions != 2:
        return ABSENT
    reason = single_step(edit, layer) or unread_reverse(edit, layer)
    if name == "scan_output_directions":
        if not any(edit.used(value) for value in layer.y):
            return ABSENT
        reason = reason or unread_order(edit, layer)
    return equivalent(reason) if reason else _turned(layer, (name,))


def ignored_state(state: str, edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Zeros instead of an initial state."""
    ports = layer.initial(state)
    if not ports:
        return ABSENT
    if state == "h" and (reason := unread_h(edit, layer)):
        return equivalent(reason)
    if all(edit.is_zero(port.value) for port in ports):
        return equivalent("it starts from c = 0")
    for port in ports:
        edit.insert("Sub", port.value, port.value, ports=[port])
    return APPLIED


def swapped_states(end: Ends, edit: Edit, layer: RecurrentLayer) -> Outcome:
    """h and c exchanged, where their shapes are equal."""
    if layer.op_type != "LSTM" or layer.W_hr or any(edit.fold(layer)):
        return ABSENT
    return _exchanged(end(layer, "h"), end(layer, "c"), edit)


def exchanged_layers(state: str, end: Ends, edit: Edit, layer: RecurrentLayer) -> Outcome:
    """A state of this layer exchanged with that of the next layer in its stack or, in a Scan, between directions."""
    following = next((other for other in edit.layers if _stacked(edit, layer, other)), None)
    if following is not None:
        both = (*layer.R, *following.R)
        read = state != "h" or end is not RecurrentLayer.initial or layer.op_type == "GRU"
        if not read and all(edit.is_zero(port.value) for port in both):
            return equivalent("R of both is zeros")
        return _exchanged(end(layer, state), end(following, state), edit)
    ports = end(layer, state)
    return _exchanged(ports[:1], ports[1:], edit)


def _exchanged(first: list[Port], second: list[Port], edit: Edit) -> Outcome:
    if not first or len(first) != len(second):
        return ABSENT
    pair = first[0], second[0]
    if pair[0].output and not all(edit.used(port.value) for port in pair):
        return ABSENT
    if pair[0].value == pair[1].value:
        return equivalent("the two are the same value")
    if not pair[0].output and all(edit.is_zero(port.value) for port in pair):
        return equivalent("both are zeros")
    for one, other in zip(first, second, strict=True):
        one.value, other.value = other.value, one.value
    return APPLIED


def _stacked(edit: Edit, layer: RecurrentLayer, other: RecurrentLayer) -> bool:
    """Whether `other` is the same kind of layer and reads the output of `layer`."""
    kinds = [(each.op_type, each.scan, each.directions, each.hidden_size) for each in (layer, other)]
    return other is not layer and kinds[0] == kinds[1] and bool(set(layer.y) & edit.origins(other.x))


def ignored_lengths(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Every sequence at full length."""
    if layer.lengths is None:
        return ABSENT
    if reason := unread_padding(edit, layer):
        return equivalent(reason)
    if not layer.scan:
        layer.lengths.value = ""
        return APPLIED
    always = edit.node("Or", layer.lengths.value, edit.node("Not", layer.lengths.value))
    for index in range(layer.lengths.index, len(layer.node.input)):
        layer.node.input[index] = always
    return APPLIED


def one_step_off(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Each sequence one step too short; in a Scan's mask, one too long."""
    if layer.lengths is None:
        return ABSENT
    if layer.scan:
        less = edit.maker(layer.lengths.value)
        if less is None or less.op_type != "Less":
            return ABSENT
        less.op_type = "LessOrEqual"
        return APPLIED
    layer.lengths.value = shorter_lengths(edit, layer.lengths.value)
    return APPLIED


def other_activations(edit: Edit, layer: RecurrentLayer) -> Outcome:
    """Gates with a piecewise linear sigmoid; in half precision, where that may not show, with another tanh as well."""
    if layer.scan or layer.op_type not in _OTHER_ACTIVATIONS or "activations" in layer.attributes:
        return ABSENT
    names = _OTHER_ACTIVATIONS[layer.op_type] * layer.directions
    weights = edit.constant(layer.W[0].value)
    if weights is not None and weights.dtype == np.float16:
        names = ["Softsign" if name == "Tanh" else name for name in names]
    elif not input_of(layer.node, PEEPHOLES) and all(
        edit.is_zero(port.value) for port in (*layer.W, *layer.R, *layer.B)
    ):
        return equivalent("each gate is the sigmoid of 0")
    set_attribute(layer.node, "activations", names)
    return APPLIED


def baked(axis: str, edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A final reshape with a fixed size of batch or time, as in a traced export."""
    for output, names in _computed_outputs(edit, axis):
        shape = np.array([_BAKED[axis] if name == axis else 0 for name in names], np.int64)
        edit.wrap_output(output, "Reshape", shape)
        return APPLIED
    return ABSENT


def reversed_output(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """An output with its steps in reverse order."""
    for output, names in _computed_outputs(edit, "time"):
        at = np.array([names.index("time")], np.int64)
        least = np.array([np.iinfo(np.int64).min], np.int64)
        edit.wrap_output(output, "Slice", np.array([-1], np.int64), least, at, np.array([-1], np.int64))
        return APPLIED
    return ABSENT


def _computed_outputs(edit: Edit, axis: str) -> Iterator[tuple[str, list[str]]]:
    """The outputs of nodes that have an axis of this name, with the names of all of their axes."""
    for output in edit.graph.output:
        names = [dim.dim_param for dim in output.type.tensor_type.shape.dim]
        if axis in names and edit.maker(output.name) is not None:
            yield output.name, names


def mispaired(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """Metadata that makes streams feed h from c and c from h."""
    entry = next((item for item in edit.model.metadata_props if item.key == "lstm_onnx.states"), None)
    pairs = json.loads(entry.value) if entry is not None else {}
    shapes = {item.name: item.type.tensor_type.SerializeToString() for item in edit.graph.input}
    alike = _caches_alike(edit)
    for first, second in itertools.combinations(pairs, 2):
        if entry is not None and shapes.get(first) == shapes.get(second) and not {first, second} <= alike:
            pairs[first], pairs[second] = pairs[second], pairs[first]
            entry.value = json.dumps(pairs)
            return APPLIED
    return ABSENT


def _caches_alike(edit: Edit) -> set[str]:
    """The caches beside counted steps, of which two may hold the same steps, or one may no longer be read."""
    streaming = edit.metadata.streaming
    return set() if streaming is None or streaming.steps is None else set(streaming.caches)


def stale_cache(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A cache that is never written."""
    found = next(_caches(edit), None)
    if found is None:
        return ABSENT
    name, after = found
    edit.replace_output(after, lambda _: edit.node("Identity", name))
    return APPLIED


def lost_cache(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A cache that is zero after each call."""
    for _, after in _caches(edit):
        edit.wrap_output(after, "Mul", np.zeros(1, np.float32))
        return APPLIED
    return ABSENT


def _caches(edit: Edit) -> Iterator[tuple[str, str]]:
    """The caches on which every later step depends; where steps are counted, some are read only at the start."""
    metadata = edit.metadata
    streaming = metadata.streaming
    if streaming is None or streaming.steps is not None:
        return
    floats = {value.name for value in edit.graph.input if value.type.tensor_type.elem_type == 1}
    for name in streaming.caches:
        if name in floats and edit.maker(metadata.states[name]) is not None:
            yield name, metadata.states[name]


_BY_ELEMENT = frozenset({"Identity", "Cast", "Dropout", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Neg", "Abs"})
_WITH_CONSTANT = frozenset({"Add", "Sub", "Mul", "Div"})


def unread_order(edit: Edit, layer: RecurrentLayer) -> str:
    """Why no output depends on the order of the steps of a Scan's reverse direction; "" if one may."""
    if not layer.scan or layer.directions != 2 or not edit.used(layer.y[1]):
        return ""
    return "its steps are only reduced over time, in any order" if _any_order(edit, layer.y[1], 0) else ""


def _any_order(edit: Edit, value: str, time: int) -> bool:
    """Whether only reductions over the axis `time` read a value, with each number of a step apart from its others."""
    return not edit.is_output(value) and all(
        _reader_in_any_order(edit, node, value, time) for node in edit.readers(value)
    )


def _reader_in_any_order(edit: Edit, node: NodeProto, value: str, time: int) -> bool:
    rank, attributes = len(edit.shapes.get(value, ())), attributes_of(node)
    if not rank or node not in edit.graph.node:  # of unknown rank, or within another node's body
        return False
    out, op = str(node.output[0]), node.op_type
    constants = [edit.constant(name) for name in node.input if name != value]
    if op in REDUCTIONS:
        axes = attributes.get("axes")
        if axes is None and constants:
            axes = None if constants[0] is None else constants[0].reshape(-1)
        return axes is not None and time in {int(axis) % rank for axis in axes}
    if op in _BY_ELEMENT and len(node.input) == 1:
        return _any_order(edit, out, time)
    if op in _WITH_CONSTANT:
        # A constant must have no time axis, or size 1 there.
        same = all(one is not None and (one.ndim < rank - time or one.shape[time - rank] == 1) for one in constants)
        return same and all(one is not None and one.ndim <= rank for one in constants) and _any_order(edit, out, time)
    if op == "Transpose" and "perm" in attributes:
        return _any_order(edit, out, [int(axis) for axis in attributes["perm"]].index(time))
    if op == "Squeeze" and len(constants) == 1 and constants[0] is not None:
        removed = {int(axis) % rank for axis in constants[0].reshape(-1)}
        return time not in removed and _any_order(edit, out, time - sum(axis < time for axis in removed))
    if op == "Concat":
        return int(attributes.get("axis", 0)) % rank != time and _any_order(edit, out, time)
    return False
