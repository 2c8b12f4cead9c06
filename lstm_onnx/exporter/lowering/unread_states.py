"""Attribute states on which no output depends: what a forward writes and never reads, or only passes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...onnxgraph.nodes import Walk, outer_values
from .rename import TracedGraph


def remove_unread_states(graph: TracedGraph, outputs: Iterable[str], states: Mapping[str, str]) -> None:
    """Remove the states that no output depends on, now or in a later call, with the nodes that compute them.

    Args:
        graph: it is changed.
        outputs: the outputs that are not states.
        states: each state input and the output that is its next value.
    """
    read = _values_before(graph, outputs, states)
    unread = {name: after for name, after in states.items() if name not in read}
    if not unread:
        return
    graph.inputs[:] = [name for name in graph.inputs if name not in unread]
    graph.outputs[:] = [name for name in graph.outputs if name not in unread.values()]
    needed = _values_before(graph, graph.outputs, {})
    graph.nodes.nodes[:] = [node for node in graph.nodes.nodes if not needed.isdisjoint(node.output)]
    graph.remove_unread_initializers()


def _values_before(graph: TracedGraph, ends: Iterable[str], states: Mapping[str, str]) -> set[str]:
    """The values that `ends` depend on, with what the next values of states among them depend on."""
    producers = graph.producers
    found = Walk(ends)
    for value in found:
        if value in states:
            found.add([states[value]])
        node = producers.get(value)
        if node is not None:
            found.add(name for name in (*node.input, *outer_values(node)) if name)
    return found.seen
