"""The step of a Loop or a Scan that goes over a sequence: what it reads, what it carries, and what it gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, NodeProto, numpy_helper

from ..onnxgraph import attributes_of, bodies_of, is_default, typed
from ..onnxgraph.nodes import Walk, constant_of, producers_of
from .plain import limited


@dataclass(frozen=True)
class Step:
    """One step of a loop over a sequence whose time axis is the first.

    Attributes:
        node: the Loop or Scan.
        nodes: those of its body, in order.
        constants: the stored values that they read.
        x: the value in the body that is one step of the sequence.
        sequence: the value of the graph that is the sequence.
        states: the values in the body that are the states before the step.
        initial: the values of the graph that are the first states.
        after: the values in the body that are the states after the step.
        final: the outputs of the node that are the last states, "" for one that nobody reads.
        stacked: the outputs of the node that stack a state of every step, by the number of the state.
        passed: the outputs of the node that are values of the graph as they went in.
        copies: further outputs of the node that are last states, by the number of the state.
        mask: the value in the body that is False where the step keeps its states; "" where there is none.
        masks: the value of the graph that holds it for all steps.
        zeroed: the value in the body that is the state h, or zeros where the step is masked; "" where there is none.
            In `stacked` its number is that after the last state's.
        zeros: the values in the body that are zeros of a state's shape.
        bounds: the values of the graph on which it depends how often a Loop runs.
        is_limited: whether it also depends on a limit that no size reaches at which files are compared.
    """

    node: NodeProto
    nodes: list[NodeProto]
    constants: Mapping[str, np.ndarray]
    x: str
    sequence: str
    states: tuple[str, ...]
    initial: tuple[str, ...]
    after: tuple[str, ...]
    final: tuple[str, ...]
    stacked: Mapping[str, int] = field(default_factory=dict)
    passed: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, int] = field(default_factory=dict)
    mask: str = ""
    masks: str = ""
    zeroed: str = ""
    zeros: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    is_limited: bool = False


def step_of(
    node: NodeProto, arrays: Mapping[str, np.ndarray], read: set[str], zeros: Collection[str] = ()
) -> Step | None:
    """The step of a Loop or a Scan; None for another node, and for one that does more than go over one sequence.

    Args:
        node: any node.
        arrays: the stored values of the graph.
        read: the values that something in the graph reads, or that are its outputs.
        zeros: the values of the graph that are always zeros.
    """
    if node.op_type not in ("Loop", "Scan") or not is_default(node.domain):
        return None
    body = next(bodies_of(node), None)
    if body is None:
        return None
    return _of_loop(node, body, arrays, read, zeros) if node.op_type == "Loop" else _of_scan(node, body, arrays, read)


class _Body:
    """A body's nodes and constants."""

    def __init__(self, body: GraphProto, arrays: Mapping[str, np.ndarray]) -> None:
        self.constants = {**arrays, **{item.name: numpy_helper.to_array(item) for item in body.initializer}}
        self.nodes: list[NodeProto] = []
        self.source: dict[str, str] = {}
        casts: dict[str, int] = {}
        for node in body.node:
            to = typed(attributes_of(node), "to", int) if node.op_type == "Cast" else None
            if node.op_type == "Identity" or (to is not None and casts.get(node.input[0]) == to):
                self.source[node.output[0]] = node.input[0]
            if to is not None:
                casts[node.output[0]] = to
            if (tensor := constant_of(node)) is not None:
                self.constants[node.output[0]] = numpy_helper.to_array(tensor)
            else:
                self.nodes.append(node)
        self.producers = producers_of(self.nodes)

    def resolved(self, name: str) -> str:
        """What a value is a copy of."""
        while name in self.source:
            name = self.source[name]
        return name


def _of_loop(
    node: NodeProto, body: GraphProto, arrays: Mapping[str, np.ndarray], read: set[str], zeros: Collection[str]
) -> Step | None:
    inner = _Body(body, arrays)
    given, results = [value.name for value in body.input], [inner.resolved(value.name) for value in body.output]
    carried, counters, states = range(len(given) - 2), {given[0]}, []
    passed: dict[str, str] = {}
    for index in carried:
        before, after, first = given[index + 2], results[index + 1], node.input[index + 2]
        if inner.resolved(after) == before:
            passed[node.output[index]] = first
            if first in arrays:
                inner.constants[before] = arrays[first]
            else:
                inner.source[before] = first
        elif _counts(inner, before, after) and first in arrays and not arrays[first].any():
            counters.add(before)
            if node.output[index] in read:
                return None
        else:
            states.append(index)
    gathers = [
        item
        for item in inner.nodes
        if item.op_type == "Gather"
        and inner.resolved(item.input[1]) in counters
        and not typed(attributes_of(item), "axis", int)
        and inner.resolved(item.input[0]) not in inner.constants
    ]
    masks = [item for item in gathers if _is_mask(inner, item)] if len(gathers) == 2 else []
    gathers = [item for item in gathers if not any(item is mask for mask in masks)]
    if len(gathers) != 1 or len(masks) > 1 or not states:
        return None
    twins = _twins(inner, [(index, given[index + 2], results[index + 1], node.input[index + 2]) for index in states])
    states = [index for index in states if index not in twins]
    used = {name for item in _needed(inner, results) for name in item.input}
    idle = [index for index in states if masks and given[index + 2] not in used]
    states = [index for index in states if index not in idle]
    if len(idle) > 1 or not states or any(node.output[index] in read for index in idle):
        return None
    zeroed = [results[index + 1] for index in idle]
    results = [
        next((results[one + 1] for two, one in twins.items() if results[two + 1] == item), item) for item in results
    ]
    depending = {gathers[0].output[0], *(item.output[0] for item in masks), *(given[index + 2] for index in states)}
    ending = _needed(inner, [results[0]])
    ends = {results[0], *(name for item in ending for name in item.input)}
    if depending & ends:
        return None  # it ends by what it computes
    inner.nodes = [item for item in inner.nodes if not any(item is other for other in (*gathers, *masks))]
    given_out = [*(results[index + 1] for index in states), *zeroed]
    nodes = _needed(inner, given_out)
    read_in_it = {inner.resolved(name) for item in nodes for name in item.input}
    if (counters | {given[index + 2] for index in twins}) & read_in_it:
        return None  # its steps are not alike
    stacked = _stacked(node, results[1 + len(carried) :], len(carried), given_out)
    if stacked is None:
        return None
    return Step(
        node,
        nodes,
        inner.constants,
        gathers[0].output[0],
        inner.resolved(gathers[0].input[0]),
        tuple(given[index + 2] for index in states),
        tuple(node.input[index + 2] for index in states),
        tuple(results[index + 1] for index in states),
        tuple(node.output[index] if node.output[index] in read else "" for index in states),
        stacked,
        {name: first for name, first in passed.items() if name in read},
        {node.output[two]: states.index(one) for two, one in twins.items() if node.output[two] in read},
        masks[0].output[0] if masks else "",
        inner.resolved(masks[0].input[0]) if masks else "",
        next(iter(zeroed), ""),
        tuple({name for item in nodes for name in item.input if inner.resolved(name) in zeros}),
        tuple(name for name in (*node.input[:2], *sorted(map(inner.resolved, ends - inner.producers.keys()))) if name),
        results[0] in limited(ending, inner.constants),
    )


def _is_mask(inner: _Body, gather: NodeProto) -> bool:
    """Whether the steps of a sequence serve as conditions alone."""
    readers = [node for node in inner.nodes if gather.output[0] in node.input]
    return all(
        node.op_type in ("Not", "Cast", "And") or (node.op_type == "Where" and node.input[1] != gather.output[0])
        for node in readers
    )


def _twins(inner: _Body, states: list[tuple[int, str, str, str]]) -> dict[int, int]:
    """The states that are equal to an earlier one at every step: they start alike, and are computed alike.

    Args:
        inner: the body.
        states: of each its number, its values before and after a step, and what it starts from.
    """
    found: dict[int, int] = {}
    for place, (index, before, after, first) in enumerate(states):
        for other, earlier, later, start in states[place + 1 :]:
            if start == first and other not in found and _alike(inner, after, later, {earlier: before}):
                found[index] = other
                break
    return found


def _alike(inner: _Body, one: str, other: str, equal: Mapping[str, str]) -> bool:
    """Whether two values in a body are computed in the same way from values of which some are equal."""
    one, other = inner.resolved(one), inner.resolved(other)
    if one == other or equal.get(other) == one:
        return True
    made, also = inner.producers.get(one), inner.producers.get(other)
    if made is None or also is None:
        first, second = inner.constants.get(one), inner.constants.get(other)
        return first is not None and second is not None and np.array_equal(first, second)
    if made is also or made.op_type != also.op_type or len(made.input) != len(also.input) or any(bodies_of(made)):
        return False
    attributes = [[item.SerializeToString() for item in node.attribute] for node in (made, also)]
    place = list(made.output).index(one) == list(also.output).index(other)
    return (
        attributes[0] == attributes[1]
        and place
        and all(_alike(inner, first, second, equal) for first, second in zip(made.input, also.input, strict=True))
    )


def _of_scan(node: NodeProto, body: GraphProto, arrays: Mapping[str, np.ndarray], read: set[str]) -> Step | None:
    inner = _Body(body, arrays)
    attributes = attributes_of(node)
    scanned = typed(attributes, "num_scan_inputs", int)
    count = len(node.input) - scanned
    moved = ("scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions")
    if scanned != 1 or count < 1 or any(any(typed(attributes, name, list)) for name in moved):
        return None
    if len(body.input) != len(node.input):  # a Scan of opset 8, which has lengths as well
        return None
    results = [inner.resolved(value.name) for value in body.output]
    stacked = _stacked(node, results[count:], count, results[:count])
    if stacked is None:
        return None
    return Step(
        node,
        _needed(inner, results[:count]),
        inner.constants,
        body.input[count].name,
        node.input[count],
        tuple(value.name for value in list(body.input)[:count]),
        tuple(node.input[:count]),
        tuple(results[:count]),
        tuple(name if name in read else "" for name in node.output[:count]),
        stacked,
    )


def _counts(inner: _Body, before: str, after: str) -> bool:
    """Whether a carried value is the number of the step: it grows by one."""
    node = inner.producers.get(after)
    if node is None or node.op_type != "Add":
        return False
    inputs = [inner.resolved(name) for name in node.input]
    others = [inner.constants.get(name) for name in inputs if name != before]
    return before in inputs and len(others) == 1 and others[0] is not None and others[0].size == 1 and others[0] == 1


def _stacked(node: NodeProto, results: list[str], first: int, after: list[str]) -> dict[str, int] | None:
    """The outputs that stack what the steps give, each with the number of its state; None where one is not a state."""
    found: dict[str, int] = {}
    for index, value in enumerate(results):
        name = node.output[first + index] if first + index < len(node.output) else ""
        if not name:
            continue
        if value not in after:
            return None
        found[name] = after.index(value)
    return found


def _needed(inner: _Body, wanted: list[str]) -> list[NodeProto]:
    """The nodes that values depend on, in order."""
    walk = Walk(wanted)
    for name in walk:
        node = inner.producers.get(name)
        walk.add(node.input if node is not None else [inner.source[name]] if name in inner.source else [])
    return [node for node in inner.nodes if walk.seen & set(node.output)]
