"""The states that a forward's caller carries: results that are the next values of arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import NodeProto, helper

from ...onnxgraph.nodes import Walk, outer_values
from ...symbolic_dims import names_in
from .lower import OpaqueCall
from .rename import TracedGraph

RESHAPED = ("Identity", "Unsqueeze", "Squeeze")
_PARTS = (*RESHAPED, "Slice", "Gather", "Split", "Transpose")
"""Operators that take one layer of a state, or h or c of a joint state, or exchange axes; Concat joins parts again."""
_ELEMENTWISE = ("Mul", "Where", "Add", "Sub", "Cast")
"""Operators by which a forward sets some rows of a state to zero or to a start."""

_Steps = Mapping[str, tuple[Any, str]]
"""For each final state, what computes it (a recurrent module or a Scan) and the value that it starts from."""


@dataclass(frozen=True)
class _Found:
    """An input from which an output follows through recurrent steps.

    Attributes:
        source, target: the input and the output.
        sure: whether no other input is possible.
        whole: whether the output as a whole is the input's next value: it is not taken apart, and any arithmetic is
            between values at the same place in their structures.
    """

    source: str
    target: str
    sure: bool
    whole: bool


def carried_states(
    graph: TracedGraph, calls: list[OpaqueCall], held: Callable[[Mapping[str, str], Collection[str]], Collection[str]]
) -> dict[str, str]:
    """The states that are arguments and results of the forward: each input, and the output that is its next value.

    An output is such a value if it consists only of final states, of one or several layers, whose initial states all
    follow from this one input.  Where parts are taken or masked on the way, only a run shows which part is where, and
    whether arithmetic is a mask.

    Args:
        graph: the traced graph.
        calls: its opaque calls.
        held: which of these inputs, carried from call to call, are next values; of some of them, which are not also
            held where they are not carried, as what a forward passes on.
    """
    steps, producers = _steps(graph, calls), _producers(graph)
    found = [state for target in graph.outputs if (state := _behind(graph, steps, producers, target)) is not None]
    chosen: dict[str, _Found] = {}
    for state in sorted(found, key=lambda state: not state.sure):
        if state.source not in chosen and all(state.target != other.target for other in chosen.values()):
            chosen[state.source] = state
    pairs = {state.source: state.target for state in chosen.values()}
    kept = {state.source for state in chosen.values() if state.whole}
    if len(kept) < len(pairs):
        kept |= set(held(pairs, ()))
    others = _alike(graph, pairs)
    if others:
        pairs |= others
        kept |= others.keys() & set(held(pairs, others))
    return {source: target for source, target in pairs.items() if source in kept}


def _producers(graph: TracedGraph) -> dict[str, NodeProto]:
    """The node that computes each value; a Reshape to the same shape, such as ``h.view(-1, 64)``, as an Identity."""
    found = graph.producers
    for value, node in found.items():
        if node.op_type == "Reshape":
            before, after = graph.dims.get(node.input[0]), graph.dims.get(value)
            if before == after and before is not None and "" not in before:
                found[value] = helper.make_node("Identity", node.input[:1], [value])
    return found


def _alike(graph: TracedGraph, pairs: Mapping[str, str]) -> dict[str, str]:
    """Further inputs, each with the one output of its own dimensions that depends on it; none that has a time axis."""
    axes = {name: set(names_in(" ".join(map(str, graph.dims[name])))) for name in graph.inputs}
    every = [own for own in axes.values() if own]
    shared = set.intersection(*every) if every else set()
    inputs = [name for name in graph.inputs if name not in pairs and graph.dims[name] and axes[name] <= shared]
    outputs = [name for name in graph.outputs if name not in pairs.values()]
    forms = {name: (graph.dims.get(name), graph.types.get(name)) for name in (*inputs, *outputs)}
    found = {}
    for source in inputs:
        targets = [name for name in outputs if forms[name] == forms[source]]
        alone = sum(forms[name] == forms[source] for name in inputs) == 1 == len(targets)
        if alone and source in values_before(graph, targets, {}):
            found[source] = targets[0]
    return found


def _steps(graph: TracedGraph, calls: list[OpaqueCall]) -> dict[str, tuple[Any, str]]:
    steps: dict[str, tuple[Any, str]] = {}
    for call in calls:
        for index, final in enumerate(call.node.output[1:], 1):
            steps[final] = call.recurrent, call.value(index)
    for node in graph.nodes.nodes:
        if node.op_type == "Scan" and node.domain == "":
            read = next(item.i for item in node.attribute if item.name == "num_scan_inputs")
            for initial, final in zip(node.input[: len(node.input) - read], node.output, strict=False):
                steps[final] = node.name, initial
    steps.pop("", None)
    return steps


def _behind(graph: TracedGraph, steps: _Steps, producers: Mapping[str, NodeProto], target: str) -> _Found | None:
    """The one input, with the output's axes, from which the initial states of all final states in the output follow."""
    ends, passed, parts, taken = [], [], [target], False
    while parts:
        value = parts.pop()
        node = producers.get(value)
        if value in steps:
            ends.append(value)
        elif value in graph.inputs:
            passed.append(_Start({value}))
        elif node is not None and node.op_type == "Where" and graph.dims.get(node.input[0]) == ():
            parts += node.input[1:]  # an if on a value, which may leave the state as it is
        elif node is not None and node.op_type in (*_PARTS, "Concat"):
            taken = taken or node.op_type not in RESHAPED
            parts += node.input if node.op_type == "Concat" else node.input[:1]
        else:
            return None
    if not ends:
        return None
    starts = [*passed, *(_Start.of(graph, steps, producers, end) for end in ends)]
    whole = not taken and not any(start.taken for start in starts)
    own = graph.dims.get(target)
    common = [name for name in graph.inputs if graph.dims[name] == own and all(name in each.inputs for each in starts)]
    same = [name for name in common if _have_one_place(name, target)]
    if len(same) == 1:
        return _Found(same[0], target, sure=True, whole=whole)
    if len(common) != 1 or any(start.other for start in starts):
        return None
    masked = any(start.masked for start in starts)
    return _Found(common[0], target, sure=not masked, whole=whole and not masked)


@dataclass
class _Start:
    """What the initial value of a final state is made from.

    Attributes:
        inputs: the inputs that are in it.
        masked: whether there is arithmetic between.
        taken: whether parts are taken between.
        other: whether another recurrent module is: a decoder that starts from its encoder's end.
    """

    inputs: set[str] = field(default_factory=set)
    masked: bool = False
    taken: bool = False
    other: bool = False

    @classmethod
    def of(cls, graph: TracedGraph, steps: _Steps, producers: Mapping[str, NodeProto], end: str) -> _Start:
        start, todo, seen = cls(), [end], {""}
        while todo:
            value = todo.pop()
            if value in seen:
                continue
            seen.add(value)
            node = producers.get(value)
            if value in steps:
                carrier, initial = steps[value]
                start.other = start.other or carrier is not steps[end][0]
                todo.append(initial)
            elif value in graph.inputs:
                start.inputs.add(value)
            elif node is not None and node.op_type in _PARTS:
                start.taken = start.taken or node.op_type not in RESHAPED
                todo.append(node.input[0])
            elif node is not None and node.op_type in _ELEMENTWISE:
                start.masked = True
                todo += node.input
        return start


def _have_one_place(name: str, output: str) -> bool:
    """Whether an output's place in the result ends an input's place in its argument, such as ``pi.0`` in both."""
    within, result = name.split(".")[1:], output.split(".")
    place = result[2 if result[0] == "output" else 1 :]
    return bool(place) and within[-len(place) :] == place


def values_before(graph: TracedGraph, ends: Iterable[str], states: Mapping[str, str]) -> set[str]:
    """The values that `ends` depend on, including what the next values of states among them depend on."""
    producers = graph.producers
    found = Walk(ends)
    for value in found:
        if value in states:
            found.add([states[value]])
        node = producers.get(value)
        if node is not None:
            found.add(name for name in (*node.input, *outer_values(node)) if name)
    return found.seen


def skip_reshapes(value: str, producers: Mapping[str, NodeProto]) -> str:
    """The value at the start of a chain of operators without arithmetic, such as Unsqueeze."""
    while (node := producers.get(value)) is not None and node.op_type in RESHAPED:
        value = node.input[0]
    return value
