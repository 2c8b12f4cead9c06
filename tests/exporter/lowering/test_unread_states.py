"""States on which no output depends are removed, with the nodes that compute them."""

from __future__ import annotations

import numpy as np

from lstm_onnx.exporter.lowering.explicit_states import remove_unread_states
from lstm_onnx.exporter.lowering.rename import TracedGraph
from lstm_onnx.onnxgraph.builder import Nodes

STATES = {"a": "a.next", "b": "b.next", "c": "c.next"}


def graph() -> TracedGraph:
    """y is x + b; a is passed on to c, b is the next b plus one, and c is written alone."""
    nodes = Nodes()
    nodes.constant("one", np.ones(1, np.float32))
    nodes.constant("two", np.full(1, 2, np.float32))
    nodes.one("Add", "x", "b", name="y")
    nodes.one("Add", "b", "one", name="b.next")
    nodes.one("Mul", "x", "two", name="a.next")
    nodes.one("Identity", "a", name="c.next")
    return TracedGraph(nodes, ["x", *STATES], ["y", *STATES.values()], {}, {})


def test_only_what_an_output_depends_on_is_left() -> None:
    found = graph()
    remove_unread_states(found, ["y"], STATES)
    assert found.inputs == ["x", "b"]
    assert found.outputs == ["y", "b.next"]
    assert [node.name for node in found.nodes.nodes] == ["y", "b.next"]
    assert list(found.nodes.initializers) == ["one"]


def test_a_state_of_a_read_state_is_read() -> None:
    found = graph()
    found.nodes.nodes[1].input[1] = "c"  # the next b
    remove_unread_states(found, ["y"], STATES)
    assert found.inputs == ["x", "a", "b", "c"]
    assert len(found.nodes.nodes) == 4
