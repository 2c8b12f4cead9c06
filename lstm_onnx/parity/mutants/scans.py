"""Makes mistakes in the body of a Scan that is not an LSTM, such as a Python loop: carries, steps and elements."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import numpy as np
from onnx import GraphProto, NodeProto

from ...onnxgraph import bodies_of, nodes_of
from ...onnxgraph.nodes import producers_of
from ...onnxgraph.recurrent import RecurrentLayer, initial_states
from .equivalence import ABSENT, APPLIED, Outcome
from .graph_edit import Edit, reads, redirect, replace_result

_END = np.array([np.iinfo(np.int64).max], np.int64)
_PASSED_ON = ("Identity", "Cast")
_RESHAPES = ("Identity", "Reshape", "Squeeze", "Unsqueeze")


def stale_carry(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A carried value that no step changes."""
    for _, body, carried in _loops(edit):
        for place in carried:
            replace_result(body, place, body.input[place].name)
            return APPLIED
    return ABSENT


def one_step_more(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A loop that runs its first step twice."""

    def repeated(value: str, axis: np.ndarray) -> str:
        first = edit.node("Slice", value, np.array([0]), np.array([1]), axis)
        return edit.node("Concat", first, value, axis=int(axis[0]))

    for node, body, carried in _loops(edit):
        if carried and not _only_fills(body, carried) and _change_elements(node, repeated):
            _cut_outputs(edit, node)
            return APPLIED
    return ABSENT


def stale_element(edit: Edit, _layer: RecurrentLayer) -> Outcome:
    """A loop in which each step gets the element of the step before."""

    def shifted(value: str, axis: np.ndarray) -> str:
        first = edit.node("Slice", value, np.array([0]), np.array([1]), axis)
        rest = edit.node("Slice", value, np.array([0]), np.array([-1]), axis)
        return edit.node("Concat", first, rest, axis=int(axis[0]))

    for node, body, _ in _loops(edit):
        read = _read(body)
        scanned = body.input[len(initial_states(node)) :]
        if any(value.name in read for value in scanned) and _change_elements(node, shifted):
            return APPLIED
    return ABSENT


def _loops(edit: Edit) -> Iterator[tuple[NodeProto, GraphProto, list[int]]]:
    """The Scans that are not recurrent layers, their bodies, and the places of values that they carry and read."""
    layers = {layer.node.name for layer in edit.layers}
    for node in edit.graph.node:
        if node.op_type != "Scan" or node.name in layers:
            continue
        (body,) = bodies_of(node)
        read = _read(body)
        producers = producers_of(body.node)
        carried = [
            place
            for place in range(len(initial_states(node)))
            if body.input[place].name in read
            and _source(producers, body.output[place].name) != body.input[place].name
            and _reaches_output(edit, node, body, place)
        ]
        yield node, body, carried


def _only_fills(body: GraphProto, carried: list[int]) -> bool:
    """Whether a step does nothing but write into one row of each carried tensor, so that twice is the same as once.

    It may also write into a part of that row.  What it writes, and where, depends on nothing that is carried.
    """
    producers = producers_of(body.node)
    before = {body.input[place].name for place in carried}
    places: dict[str, Hashable] = {}
    for place in carried:
        fill = producers.get(body.output[place].name)
        if fill is None or not _writes(fill) or fill.input[0] != body.input[place].name:
            return False
        places[fill.input[0]] = _form(producers, fill.input[1])
    fills = {body.output[place].name for place in carried}
    rows: set[str] = set()  # the row to be written
    others: set[str] = set()  # anything else of what is carried, of which only the shape may be used
    for node in body.node:
        earlier = before | rows | others
        first, rest = node.input[0] if node.input else "", earlier & {*node.input[1:]}
        if not earlier & reads(node) or node.op_type == "Shape":
            continue
        if node.output[0] in fills:
            if node.input[1] in earlier or (node.input[2] in earlier and node.input[2] not in rows):
                return False
        elif first in rows and not rest and (node.op_type in _RESHAPES or _writes(node)):
            rows.update(node.output)
        elif first in places and not rest and node.op_type == "Gather" and not any(a.i for a in node.attribute):
            (rows if _form(producers, node.input[1]) == places[first] else others).update(node.output)
        else:
            others.update(node.output)
    return not {value.name for value in body.output} & (rows | others)


def _writes(node: NodeProto) -> bool:
    return node.op_type == "ScatterND" and all(item.s in (b"", b"none") for item in node.attribute)


def _form(producers: dict[str, NodeProto], value: str) -> Hashable:
    """An index's expression, whatever its shape."""
    node = producers.get(value)
    if node is None or list(bodies_of(node)):
        return value
    if node.op_type in _RESHAPES:
        return _form(producers, node.input[0])
    attributes = tuple(item.SerializeToString(deterministic=True) for item in node.attribute)
    return (node.op_type, attributes, *(_form(producers, name) for name in node.input))


def _read(body: GraphProto) -> set[str]:
    """What a body's nodes use, without what they only pass on."""
    return {value for node in nodes_of(body.node) if node.op_type not in _PASSED_ON for value in node.input}


def _source(producers: dict[str, NodeProto], value: str) -> str:
    while value in producers and producers[value].op_type in _PASSED_ON:
        value = producers[value].input[0]
    return value


def _reaches_output(edit: Edit, node: NodeProto, body: GraphProto, place: int) -> bool:
    """Whether an output that is used depends on a carried value, in the same step or through what is carried."""
    depends = {body.input[place].name}
    count, before = len(initial_states(node)), 0
    while len(depends) > before:
        before = len(depends)
        for inner in body.node:
            if depends & reads(inner):
                depends.update(inner.output)
        depends |= {body.input[i].name for i in range(count) if body.output[i].name in depends}
    return any(edit.used(value) for value, inner in zip(node.output, body.output, strict=True) if inner.name in depends)


def _change_elements(node: NodeProto, change: Callable[[str, np.ndarray], str]) -> bool:
    """Change each scanned input; False for a Scan along other axes than the first, or backwards."""
    names = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
    if any(any(item.ints) for item in node.attribute if item.name in names):
        return False
    axis = np.array([0], np.int64)
    for place in range(len(initial_states(node)), len(node.input)):
        node.input[place] = change(node.input[place], axis)
    return True


def _cut_outputs(edit: Edit, node: NodeProto) -> None:
    """Leave out the first step in outputs that a Scan gives for each step."""
    after_first = np.array([1], np.int64), _END, np.array([0], np.int64)
    for value in node.output[len(initial_states(node)) :]:
        if edit.is_output(value):
            edit.wrap_output(value, "Slice", *after_first)
        elif readers := edit.readers(value):
            redirect(readers, value, edit.node("Slice", value, *after_first))
