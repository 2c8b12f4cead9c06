"""Iterates over the nodes of a model, including those in subgraphs and functions, and finds which ones are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

T = TypeVar("T")
MOST_NODES = 10**5
"""The most nodes to which functions are inlined: functions in a file of 2 kB that call each other can reach 2^40."""

_NUMBERS = {
    AttributeProto.INT: np.int64,
    AttributeProto.INTS: np.int64,
    AttributeProto.FLOAT: np.float32,
    AttributeProto.FLOATS: np.float32,
}
_REPEATS = frozenset({"Expand", "Tile"})
_PASSED = frozenset({"Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that change the shape of a value, or take a part of it."""
_MOST_STEPS = 8
END_OF_AXIS = 2**31 - 1
"""Exporters write this end or a larger one in a Slice to the end of an axis."""
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Random operators, whose results differ from run to run."""


class Walk(Generic[T]):
    """Iterates over items, each once; more can be added during the iteration."""

    def __init__(self, starts: Iterable[T]) -> None:
        self.todo = list(starts)
        self.seen: set[T] = set()

    def __iter__(self) -> Iterator[T]:
        """The items, the most recently added first."""
        while self.todo:
            item = self.todo.pop()
            if item not in self.seen:
                self.seen.add(item)
                yield item

    def add(self, items: Iterable[T]) -> None:
        """Iterate over these items, too."""
        self.todo += items


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all nested subgraphs."""
    yield graph
    for node in nodes_of(graph.node):
        yield from bodies_of(node)


REPAIR_FIRST = "lstm-onnx repair replaces loops that compute an LSTM, GRU or RNN by operators"
"""A hint for a file from another tool that has such loops."""


def has_loops(nodes: Iterable[NodeProto]) -> bool:
    """Whether there is a Loop or Scan among the nodes of a graph."""
    return any(not node.domain and node.op_type in ("Loop", "Scan") for node in nodes)


def nodes_of(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """The nodes of a graph or a function, and those of all nested subgraphs."""
    todo = list(nodes)
    while todo:
        node = todo.pop()
        yield node
        todo += (inner for body in bodies_of(node) for inner in body.node)


def bodies_of(node: NodeProto) -> Iterator[GraphProto]:
    """The subgraphs of a node, without those nested in them."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def stored_tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Every stored tensor by name: initializers and Constant nodes, including those in bodies and functions."""
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            yield str(tensor.name), tensor
        yield from _constant_nodes(graph.node)
    for function in model.functions:
        yield from _constant_nodes(function.node)


def constant_of(node: NodeProto) -> TensorProto | None:
    """The tensor or numbers of a Constant; None if it holds something else, or the node is not a Constant."""
    item = node.attribute[0] if node.op_type == "Constant" and node.attribute else AttributeProto()
    if item.type == AttributeProto.TENSOR:
        return item.t
    kind = _NUMBERS.get(item.type)
    return None if kind is None else numpy_helper.from_array(np.array(helper.get_attribute_value(item), kind))


def _constant_nodes(nodes: Iterable[NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    for node in nodes:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield str(node.output[0]), attribute.t


def inputs_of(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs that a caller passes, without initializers, which old files list as inputs, too."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def producers_of(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    """The node that computes each value, without those in bodies."""
    return {name: node for node in nodes for name in node.output if name}


def node_label(node: NodeProto) -> str:
    """A node's name for messages."""
    return str(node.name) or f"{node.op_type} that makes {', '.join(map(str, filter(None, node.output)))}"


def node_name(node: NodeProto) -> str:
    """A node's name or, if it has none, the first of its outputs that is not left out, which has the name ""."""
    return str(node.name or next(filter(None, node.output), ""))


def is_handed_on(body: GraphProto, before: str, after: str) -> bool:
    """Whether a body's output `after` is its input `before`, unchanged or copied."""
    copies = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    for _ in copies:
        after = copies.get(after, after)
    return after == before


def rename_values(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Rename values in nodes and their bodies, where a name means the same value, since ONNX forbids shadowing."""
    for node in nodes:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
        for body in bodies_of(node):
            rename_values(body.node, names)
            for value in (*body.input, *body.output):
                value.name = names.get(value.name, value.name)


def outer_values(node: NodeProto) -> list[str]:
    """The values that the subgraphs of a node read from the enclosing graphs."""
    found: list[str] = []
    for body in bodies_of(node):
        own = _defined(body)
        used = [name for inner in nodes_of(body.node) for name in inner.input]
        found += [name for name in (*used, *(value.name for value in body.output)) if name and name not in own]
    return list(dict.fromkeys(found))


def needed_nodes(nodes: Sequence[NodeProto], values: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes, in their order, on which values depend; and these values with every value that the nodes read."""
    wanted, kept = set(values), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= {*node.input, *outer_values(node)} - {""}
    return kept[::-1], wanted


def repeating_node(
    value: str, producer: Callable[[str], NodeProto | None], steps: int = _MOST_STEPS
) -> NodeProto | None:
    """The Expand or Tile from which a value, or a part of it, is made by nothing but changes of shape.

    Args:
        value: the value.
        producer: returns the node that computes a value; None for an input or a stored tensor.
        steps: how many nodes to follow.
    """
    node = producer(value)
    if node is None or node.op_type in _REPEATS:
        return node
    if node.op_type not in _PASSED or not steps:
        return None
    sources = node.input if node.op_type == "Concat" else node.input[:1]
    return next((found for each in sources if (found := repeating_node(each, producer, steps - 1)) is not None), None)


def sorted_nodes(nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes sorted so that each follows those whose values it reads; nodes in a cycle have any order."""
    made = producers_of(nodes)
    done: set[int] = set()
    ordered: list[NodeProto] = []
    for start in nodes:
        todo = [start]
        while todo:
            node = todo[-1]
            before = [made[name] for name in (*node.input, *outer_values(node)) if name in made]
            waiting = [item for item in before if id(item) not in done and item is not node]
            if waiting and len(todo) <= len(nodes):
                todo += waiting[:1]
                continue
            todo.pop()
            if id(node) not in done:
                done.add(id(node))
                ordered.append(node)
    return ordered


def _defined(body: GraphProto) -> set[str]:
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    for inner in nodes_of(body.node):
        own |= set(inner.output)
        for deeper in bodies_of(inner):
            own |= {value.name for value in deeper.input} | {tensor.name for tensor in deeper.initializer}
    return own


def inlined_size(model: ModelProto) -> int:
    """How many nodes the model has once its functions are inlined; a recursive call counts as one node.

    0 where it has no functions.
    """
    functions = {(str(item.domain), str(item.name)): item for item in model.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[NodeProto], callers: frozenset[tuple[str, str]]) -> int:
        total = 0
        for node in nodes_of(nodes):
            key = str(node.domain), str(node.op_type)
            if key in functions and key not in callers:
                if key not in counts:
                    counts[key] = count(functions[key].node, callers | {key})
                total += counts[key]
            else:
                total += 1
        return total

    return count(model.graph.node, frozenset()) if functions else 0
