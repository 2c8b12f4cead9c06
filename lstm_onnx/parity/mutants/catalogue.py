"""The mistakes, each as an edit of a model that says whether it applies.

A mutator that would change nothing (a bias of zeros dropped, equal gates exchanged) says so with
`EQUIVALENT`, which is then proven and no blind spot of the verification.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .graph import Edit, Port, Site

APPLIED, ABSENT, EQUIVALENT = "applied", "absent", "equivalent"
_ORDER = {"LSTM": "iofc", "GRU": "zrh"}
"""ONNX's order of the gates."""
_OTHER_ACTIVATIONS = {"LSTM": ["HardSigmoid", "Tanh", "Tanh"], "GRU": ["HardSigmoid", "Tanh"]}
_LARGEST_PROOF = 2**24
"""Entries of a weight up to which it is looked at whether an exchange changes anything."""


@dataclass(frozen=True)
class Mutator:
    """A way to be wrong.

    `apply` changes a model at a site, or (`whole`) as a whole, and says what came of it.  `quick` is
    whether a quick self-test tries it; `streams` whether only runs that carry states can see it.
    """

    name: str
    apply: Callable[[Edit, Site], str]
    quick: bool = True
    whole: bool = False
    streams: bool = False


def _swapped_gates(first: int, second: int, op_type: str) -> Callable[[Edit, Site], str]:
    """Two gates exchanged in W, R and B."""

    def apply(edit: Edit, site: Site) -> str:
        if site.op_type != op_type:
            return ABSENT
        order = list(range(site.gates))
        order[first], order[second] = order[second], order[first]
        if _same_gates(edit, site, first, second):
            return EQUIVALENT
        for port, blocks in _weights_by_gate(site):
            rows = np.arange(site.hidden)
            index = np.concatenate([rows + block * site.hidden for block in _ordered(blocks, order)])
            edit.insert("Gather", port.value, index, ports=[port], axis=-1 if site.scan else 1)
        return APPLIED

    return apply


def _weights_by_gate(site: Site) -> list[tuple[Port, range]]:
    """Each port that reads weights by gate, and their blocks: an operator's B has W's and then R's."""
    if site.scan:
        wide = range(site.gates * site.directions)
        return [*((port, wide) for port in (*site.W, *site.B)), *((port, range(site.gates)) for port in site.R)]
    once, twice = range(site.gates), range(site.gates * 2)
    return [*((port, once) for port in (*site.W, *site.R)), *((port, twice) for port in site.B)]


def _ordered(blocks: range, order: list[int]) -> list[int]:
    gates = len(order)
    return [start + gate for start in range(0, len(blocks), gates) for gate in order]


def _same_gates(edit: Edit, site: Site, first: int, second: int) -> bool:
    for port, blocks in _weights_by_gate(site):
        array = edit.constant(port.value)
        if array is None or array.size > _LARGEST_PROOF:
            return False
        parts = np.split(array, len(blocks), axis=-1 if site.scan else 1)
        for start in range(0, len(blocks), site.gates):
            if not np.array_equal(parts[start + first], parts[start + second]):
                return False
    return True


def _transposed_recurrent(edit: Edit, site: Site) -> str:
    """R transposed, gate by gate; of a Scan only where a gate's block is square."""
    port = site.R[0]
    array = edit.constant(port.value)
    if array is not None and array.size <= _LARGEST_PROOF and site.scan and array.shape[-2] != site.hidden:
        return ABSENT
    sizes = np.array([-1, site.gates, site.hidden, site.hidden], np.int64)
    if site.scan:
        sizes = np.array([site.hidden, site.gates, site.hidden], np.int64)
    flat = np.array([-1, site.gates * site.hidden, site.hidden], np.int64)
    if site.scan:
        flat = np.array([site.hidden, site.gates * site.hidden], np.int64)
    if site.hidden == 1:
        return EQUIVALENT
    blocks = edit.node("Reshape", port.value, sizes)
    turned = edit.node("Transpose", blocks, perm=[2, 1, 0] if site.scan else [0, 1, 3, 2])
    port.value = edit.node("Reshape", turned, flat)
    return APPLIED


def _bias(keep: tuple[float, float]) -> Callable[[Edit, Site], str]:
    """The input's bias and the recurrent one, each times a number; a Scan keeps only their sum."""

    def apply(edit: Edit, site: Site) -> str:
        if not site.B or (site.scan and keep[0] != keep[1]):
            return ABSENT
        port = site.B[0]
        half = np.repeat(np.array(keep), site.gates * site.hidden)
        array = edit.constant(port.value)
        if array is None:
            return ABSENT
        factor = np.full(array.shape[-1], keep[0]) if site.scan else half
        if np.array_equal(array * factor, array):
            return EQUIVALENT
        edit.insert("Mul", port.value, factor.astype(array.dtype), ports=[port])
        return APPLIED

    return apply


def _scaled(by: float, ports: Callable[[Site], tuple[Port, ...]]) -> Callable[[Edit, Site], str]:
    """Weights a little too large."""

    def apply(edit: Edit, site: Site) -> str:
        for port in ports(site):
            array = edit.constant(port.value)
            if array is None:
                return ABSENT
            if not np.any(array):
                return EQUIVALENT
            edit.insert("Mul", port.value, np.array(by, array.dtype), ports=[port])
        return APPLIED

    return apply


def _exchanged_directions(edit: Edit, site: Site) -> str:
    """Every weight of the two directions exchanged."""
    if site.directions != 2:
        return ABSENT
    if site.scan:
        width = site.gates * site.hidden
        turned = np.concatenate([np.arange(width) + width, np.arange(width)])
        for port in (*site.W, *site.B):
            edit.insert("Gather", port.value, turned, ports=[port], axis=-1)
        for pair in (site.R, site.W_hr):
            pair[0].value, pair[1].value = pair[1].value, pair[0].value
        return APPLIED
    for port in (*site.W, *site.R, *site.B):
        edit.insert("Gather", port.value, np.array([1, 0]), ports=[port], axis=0)
    return APPLIED


def _backwards(_edit: Edit, site: Site) -> str:
    """A direction that runs the other way."""
    if site.scan:
        return _turned(site, ("scan_input_directions", "scan_output_directions"))
    if site.directions == 2:
        return ABSENT
    attribute = next((item for item in site.node.attribute if item.name == "direction"), None)
    if attribute is None:
        attribute = site.node.attribute.add(name="direction", s=b"forward", type=3)
    attribute.s = b"forward" if attribute.s == b"reverse" else b"reverse"
    return APPLIED


def _turned(site: Site, names: tuple[str, ...]) -> str:
    """A Scan's last direction the other way round."""
    for name in names:
        attribute = next(item for item in site.node.attribute if item.name == name)
        # Input directions are those of the gates, and then those of the mask.
        every = range(site.directions - 1, len(attribute.ints), site.directions)
        for index in every:
            attribute.ints[index] = 1 - attribute.ints[index]
    return APPLIED


def _unreversed(name: str) -> Callable[[Edit, Site], str]:
    """A Scan that reads or writes its reverse direction forwards."""

    def apply(_edit: Edit, site: Site) -> str:
        return _turned(site, (name,)) if site.scan and site.directions == 2 else ABSENT

    return apply


def _ignored_state(state: str) -> Callable[[Edit, Site], str]:
    """Zeros in place of an initial state."""

    def apply(edit: Edit, site: Site) -> str:
        ports = site.initial(state)
        if not ports:
            return ABSENT
        if all(edit.is_zero(port.value) for port in ports):
            return EQUIVALENT
        for port in ports:
            edit.insert("Sub", port.value, port.value, ports=[port])
        return APPLIED

    return apply


def _exchanged(first: list[Port], second: list[Port], edit: Edit) -> str:
    if not first or len(first) != len(second):
        return ABSENT
    if first[0].value == second[0].value:
        return EQUIVALENT
    if first[0].output and not all(edit.used(port.value) for port in (first[0], second[0])):
        return ABSENT
    if not first[0].output and edit.is_zero(first[0].value) and edit.is_zero(second[0].value):
        return EQUIVALENT
    for one, other in zip(first, second, strict=True):
        one.value, other.value = other.value, one.value
    return APPLIED


def _swapped_states(end: Callable[[Site, str], list[Port]]) -> Callable[[Edit, Site], str]:
    """h and c exchanged, where their shapes are one."""

    def apply(edit: Edit, site: Site) -> str:
        if site.op_type != "LSTM" or site.W_hr:
            return ABSENT
        return _exchanged(end(site, "h"), end(site, "c"), edit)

    return apply


def _exchanged_layers(state: str, end: Callable[[Site, str], list[Port]]) -> Callable[[Edit, Site], str]:
    """A state of this layer and the next layer's exchanged; or, of a Scan, of its two directions."""

    def apply(edit: Edit, site: Site) -> str:
        following = edit.sites[edit.sites.index(site) + 1 :]
        alike = [other for other in following if _alike(site, other)]
        if alike:
            return _exchanged(end(site, state), end(alike[0], state), edit)
        ports = end(site, state)
        return _exchanged(ports[:1], ports[1:], edit)

    return apply


def _alike(site: Site, other: Site) -> bool:
    return (site.op_type, site.scan, site.directions, site.hidden) == (
        other.op_type,
        other.scan,
        other.directions,
        other.hidden,
    )


def _ignored_lengths(edit: Edit, site: Site) -> str:
    """Every sequence taken as whole."""
    if site.lengths is None:
        return ABSENT
    if not site.scan:
        site.lengths.value = ""
        return APPLIED
    opposite = edit.node("Not", site.lengths.value)
    always = edit.node("Or", site.lengths.value, opposite)
    for index in range(site.lengths.index, len(site.node.input)):
        site.node.input[index] = always
    return APPLIED


def _one_step_off(edit: Edit, site: Site) -> str:
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


def _misordered_projection(edit: Edit, site: Site) -> str:
    """The rows of W_hr in the opposite order."""
    port = site.W_hr[0] if site.W_hr else edit.folded_projection(site)
    array = None if port is None else edit.constant(port.value)
    if port is None or array is None:
        return ABSENT
    if np.array_equal(array[..., ::-1, :], array):
        return EQUIVALENT
    index = np.arange(array.shape[-2])[::-1]
    edit.insert("Gather", port.value, index, ports=[port], axis=array.ndim - 2)
    return APPLIED


def _other_activations(_edit: Edit, site: Site) -> str:
    """Gates with a piecewise linear sigmoid."""
    if site.scan or site.op_type not in _OTHER_ACTIVATIONS:
        return ABSENT
    if any(item.name == "activations" for item in site.node.attribute):
        return ABSENT
    names = [name.encode() for name in _OTHER_ACTIVATIONS[site.op_type]] * site.directions
    site.node.attribute.add(name="activations", strings=names, type=8)
    return APPLIED


def _baked(axis: str) -> Callable[[Edit, Site], str]:
    """A reshape at the end that knows one size of batch or time, as a traced export's does."""

    def apply(edit: Edit, _site: Site) -> str:
        for output in edit.graph.output:
            dims = output.type.tensor_type.shape.dim
            names = [dim.dim_param for dim in dims]
            if axis in names and output.type.tensor_type.elem_type:
                shape = np.array([_BAKED[axis] if name == axis else 0 for name in names], np.int64)
                edit.behind(output.name, "Reshape", shape)
                return APPLIED
        return ABSENT

    return apply


_BAKED = {"batch": 3, "time": 7}
"""Sizes that the sweep has, among others."""


def _reversed_output(edit: Edit, _site: Site) -> str:
    """An output that runs from the last step to the first."""
    for output in edit.graph.output:
        names = [dim.dim_param for dim in output.type.tensor_type.shape.dim]
        if "time" in names:
            at = np.array([names.index("time")], np.int64)
            least = np.array([np.iinfo(np.int64).min], np.int64)
            edit.behind(output.name, "Slice", np.array([-1], np.int64), least, at, np.array([-1], np.int64))
            return APPLIED
    return ABSENT


def _mispaired(edit: Edit, _site: Site) -> str:
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


def _gate_pairs(op_type: str, quick: set[str]) -> list[Mutator]:
    order = _ORDER[op_type]
    pairs = itertools.combinations(range(len(order)), 2)
    return [
        Mutator(
            f"gates {order[first]} and {order[second]} exchanged",
            _swapped_gates(first, second, op_type),
            quick=order[first] + order[second] in quick,
        )
        for first, second in pairs
    ]


MUTATORS: tuple[Mutator, ...] = (
    *_gate_pairs("LSTM", {"io", "of", "fc"}),
    *_gate_pairs("GRU", {"zr", "rh"}),
    Mutator("R transposed", _transposed_recurrent),
    Mutator("input bias dropped", _bias((0.0, 1.0))),
    Mutator("recurrent bias dropped", _bias((1.0, 0.0))),
    Mutator("both biases dropped", _bias((0.0, 0.0)), quick=False),
    Mutator("bias added twice", _bias((2.0, 2.0))),
    Mutator("directions exchanged", _exchanged_directions),
    Mutator("run backwards", _backwards),
    Mutator("reverse input unreversed", _unreversed("scan_input_directions")),
    Mutator("reverse output unreversed", _unreversed("scan_output_directions")),
    Mutator("initial h ignored", _ignored_state("h")),
    Mutator("initial c ignored", _ignored_state("c")),
    Mutator("initial h and c exchanged", _swapped_states(Site.initial)),
    Mutator("final h and c exchanged", _swapped_states(Site.final)),
    Mutator("initial h of two layers exchanged", _exchanged_layers("h", Site.initial)),
    Mutator("initial c of two layers exchanged", _exchanged_layers("c", Site.initial)),
    Mutator("final h of two layers exchanged", _exchanged_layers("h", Site.final)),
    Mutator("final c of two layers exchanged", _exchanged_layers("c", Site.final)),
    Mutator("lengths ignored", _ignored_lengths),
    Mutator("lengths one step off", _one_step_off),
    Mutator("projection misordered", _misordered_projection),
    Mutator("other activations", _other_activations),
    Mutator("batch baked in", _baked("batch"), whole=True),
    Mutator("time baked in", _baked("time"), whole=True),
    Mutator("output reversed in time", _reversed_output, whole=True),
    Mutator("streams' states mispaired", _mispaired, whole=True, streams=True),
    Mutator("W a thousandth too large", _scaled(1.001, lambda site: site.W), quick=False),
    Mutator("R a thousandth too large", _scaled(1.001, lambda site: site.R), quick=False),
)
"""Those of the quick self-test are wrong by much; the last two are not, and the whole set has them too."""
