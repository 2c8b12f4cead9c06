"""Inlines weights that a Loop only passes along: other converters make them states that no step changes.

The body can read them from the outer graph like any other constant.  Then they can become integers, and are not also
stored as floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from onnx import GraphProto, NodeProto

from ..onnxgraph import bodies_of, graphs_of, is_default
from ..onnxgraph.nodes import is_handed_on, rename_values

_LOOP_INPUTS = 2
"""The inputs before the states: the trip count and the condition; in the body the iteration and the condition."""


def inline_loop_constants(graph: GraphProto, constant: Callable[[str], object | None]) -> None:
    """Let the bodies of all Loops read directly the constants that they only pass along; the graph is changed.

    Args:
        graph: with its bodies.
        constant: returns the content of a constant; None for another value.
    """
    for one in graphs_of(graph):
        for node in one.node:
            if node.op_type == "Loop" and is_default(node.domain):
                for index in reversed(list(_handed_on(node))):
                    name = node.input[_LOOP_INPUTS + index]
                    if constant(name) is not None:
                        _inline(one, node, index, name)


def _handed_on(node: NodeProto) -> Iterator[int]:
    """The states that no step changes, by their index."""
    body = next(bodies_of(node))
    for index in range(len(node.input) - _LOOP_INPUTS):
        if is_handed_on(body, body.input[_LOOP_INPUTS + index].name, body.output[1 + index].name):
            yield index


def _inline(graph: GraphProto, node: NodeProto, index: int, name: str) -> None:
    """Remove a state of a Loop; its readers read `name`."""
    body = next(bodies_of(node))
    final = node.output[index] if index < len(node.output) else ""
    state = body.input[_LOOP_INPUTS + index].name
    others = [value.name for at, value in enumerate(body.output) if at != 1 + index]
    if state in others or final in {value.name for value in graph.output} - {""}:
        return  # an output of a graph must be made by the graph
    rename_values(body.node, {state: name})
    if final:
        rename_values(graph.node, {final: name})
    del node.input[_LOOP_INPUTS + index], body.input[_LOOP_INPUTS + index], body.output[1 + index]
    if index < len(node.output):
        del node.output[index]
