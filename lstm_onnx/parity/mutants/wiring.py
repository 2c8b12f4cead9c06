"""Mistakes between a layer and what is around it: states, time, lengths, shapes, activations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np

from .equivalence import single_step, unheard_h, unread_padding
from .graph_edit import Edit, Port, Site
from .outcome import ABSENT, APPLIED, Outcome, equivalent

Apply = Callable[[Edit, Site], Outcome]
Ends = Callable[[Site, str], list[Port]]
_OTHER_ACTIVATIONS = {"LSTM": ["HardSigmoid", "Tanh", "Tanh"], "GRU": ["HardSigmoid", "Tanh"]}
_BAKED = {"batch": 3, "time": 7}
"""Sizes that the sweep has, among others."""


def backwards(edit: Edit, site: Site) -> Outcome:
    """A direction that runs the other way."""
    if site.directions == 2 and not site.scan:
        return ABSENT
    if reason := single_step(edit, site):
        return equivalent(reason)
    if site.scan:
        return _turned(site, ("scan_input_directions", "scan_output_directions"))
    attribute = next((item for item in site.node.attribute if item.name == "direction"), None)
    if attribute is None:
        attribute = site.node.attribute.add(name="direction", s=b"forward", type=3)
    attribute.s = b"forward" if attribute.s == b"reverse" else b"reverse"
    return APPLIED


def _turned(site: Site, names: tuple[str, ...]) -> Outcome:
    """A Scan's last direction the other way round."""
    for name in names:
        attribute = next(item for item in site.node.attribute if item.name == name)
        # Input directions are those of the gates, and then those of the mask.
        for index in range(site.directions - 1, len(attribute.ints), site.directions):
            attribute.ints[index] = 1 - attribute.ints[index]
    return APPLIED


def unreversed(name: str) -> Apply:
    """A Scan that reads or writes its reverse direction forwards."""

    def apply(edit: Edit, site: Site) -> Outcome:
        if not site.scan or site.directions != 2:
            return ABSENT
        reason = single_step(edit, site)
        if name == "scan_output_directions" and not any(edit.used(value) for value in site.y):
            return ABSENT
        return equivalent(reason) if reason else _turned(site, (name,))

    return apply


def ignored_state(state: str) -> Apply:
    """Zeros in place of an initial state."""

    def apply(edit: Edit, site: Site) -> Outcome:
        ports = site.initial(state)
        if not ports:
            return ABSENT
        if state == "h" and (reason := unheard_h(edit, site)):
            return equivalent(reason)
        if all(edit.is_zero(port.value) for port in ports):
            return equivalent("it starts from c = 0")
        for port in ports:
            edit.insert("Sub", port.value, port.value, ports=[port])
        return APPLIED

    return apply


def swapped_states(end: Ends) -> Apply:
    """h and c exchanged, where their shapes are one."""

    def apply(edit: Edit, site: Site) -> Outcome:
        if site.op_type != "LSTM" or site.W_hr or any(edit.fold(site)):
            return ABSENT
        return _exchanged(end(site, "h"), end(site, "c"), edit)

    return apply


def exchanged_layers(state: str, end: Ends) -> Apply:
    """A state of this layer and the next of its stack exchanged; or, of a Scan, of its two directions."""

    def apply(edit: Edit, site: Site) -> Outcome:
        following = next((other for other in edit.sites if _stacked(edit, site, other)), None)
        if following is not None:
            return _exchanged(end(site, state), end(following, state), edit)
        ports = end(site, state)
        return _exchanged(ports[:1], ports[1:], edit)

    return apply


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


def _stacked(edit: Edit, site: Site, other: Site) -> bool:
    """Whether `other` is the same kind of layer and reads what `site` gives."""
    kinds = [(each.op_type, each.scan, each.directions, each.hidden) for each in (site, other)]
    return other is not site and kinds[0] == kinds[1] and bool(set(site.y) & edit.origins(other.x))


def ignored_lengths(edit: Edit, site: Site) -> Outcome:
    """Every sequence taken as whole."""
    if site.lengths is None:
        return ABSENT
    if reason := unread_padding(edit, site):
        return equivalent(reason)
    if not site.scan:
        site.lengths.value = ""
        return APPLIED
    opposite = edit.node("Not", site.lengths.value)
    always = edit.node("Or", site.lengths.value, opposite)
    for index in range(site.lengths.index, len(site.node.input)):
        site.node.input[index] = always
    return APPLIED


def one_step_off(edit: Edit, site: Site) -> Outcome:
    """Each sequence one step too short; of a Scan's mask, one too long."""
    if site.lengths is None:
        return ABSENT
    if site.scan:
        less = edit.maker(site.lengths.value)
        if less is None or less.op_type != "Less":
            return ABSENT
        less.op_type = "LessOrEqual"
        return APPLIED
    one = np.array(1, np.int32)
    shorter = edit.node("Sub", site.lengths.value, one)
    site.lengths.value = edit.node("Max", shorter, one)
    return APPLIED


def other_activations(edit: Edit, site: Site) -> Outcome:
    """Gates with a piecewise linear sigmoid, which half precision cannot always tell: there tanh is another too."""
    if site.scan or site.op_type not in _OTHER_ACTIVATIONS:
        return ABSENT
    if any(item.name == "activations" for item in site.node.attribute):
        return ABSENT
    names = _OTHER_ACTIVATIONS[site.op_type] * site.directions
    weights = edit.constant(site.W[0].value)
    if weights is not None and weights.dtype == np.float16:
        names = ["Softsign" if name == "Tanh" else name for name in names]
    site.node.attribute.add(name="activations", strings=[name.encode() for name in names], type=8)
    return APPLIED


def baked(axis: str) -> Apply:
    """A reshape at the end that knows one size of batch or time, as a traced export's does."""

    def apply(edit: Edit, _site: Site) -> Outcome:
        for output in edit.graph.output:
            dims = output.type.tensor_type.shape.dim
            names = [dim.dim_param for dim in dims]
            if axis in names and edit.maker(output.name) is not None:
                shape = np.array([_BAKED[axis] if name == axis else 0 for name in names], np.int64)
                edit.behind(output.name, "Reshape", shape)
                return APPLIED
        return ABSENT

    return apply


def reversed_output(edit: Edit, _site: Site) -> Outcome:
    """An output that runs from the last step to the first."""
    for output in edit.graph.output:
        names = [dim.dim_param for dim in output.type.tensor_type.shape.dim]
        if "time" in names and edit.maker(output.name) is not None:
            at = np.array([names.index("time")], np.int64)
            least = np.array([np.iinfo(np.int64).min], np.int64)
            edit.behind(output.name, "Slice", np.array([-1], np.int64), least, at, np.array([-1], np.int64))
            return APPLIED
    return ABSENT


def mispaired(edit: Edit, _site: Site) -> Outcome:
    """Streams that feed h from c and c from h, by the metadata."""
    entry = next((item for item in edit.model.metadata_props if item.key == "lstm_onnx.states"), None)
    pairs = json.loads(entry.value) if entry is not None else {}
    shapes = {item.name: item.type.tensor_type.SerializeToString() for item in edit.graph.input}
    for first, second in itertools.combinations(pairs, 2):
        if entry is not None and shapes.get(first) == shapes.get(second):
            pairs[first], pairs[second] = pairs[second], pairs[first]
            entry.value = json.dumps(pairs)
            return APPLIED
    return ABSENT
