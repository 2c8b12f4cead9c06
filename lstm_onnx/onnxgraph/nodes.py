"""All nodes of a model, including those of subgraphs and functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

T = TypeVar("T")
MOST_NODES = 10**5
"""Nodes up to which functions are inlined: a file of 2 kB whose functions call each other can ask for 2^40."""

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
"""Exporters write this or more for the end of any axis."""
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Operators that draw other numbers at each run."""


class Walk(Generic[T]):
    """Items to go through, each once; those that follow from an item are added on the way."""

    def __init__(self, starts: Iterable[T]) -> None:
        self.todo = list(starts)
        self.seen: set[T] = set()

    def __iter__(self) -> Iterator[T]:
        """The items, the last ones that were added first."""
        while self.todo:
            item = self.todo.pop()
            if item not in self.seen:
                self.seen.add(item)
                yield item

    def add(self, items: Iterable[T]) -> None:
        """Go through these, too."""
        self.todo += items


def graphs_of(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all nested subgraphs."""
    yield graph
    for node in nodes_of(graph.node):
        yield from bodies_of(node)


REPAIR_FIRST = "lstm-onnx repair makes operators of loops that compute an LSTM, GRU or RNN"
"""A hint for another tool's file that has them."""


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
    """Every stored tensor by name: initializers and Constant nodes, those of bodies and functions included."""
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            yield str(tensor.name), tensor
        yield from _constant_nodes(graph.node)
    for function in model.functions:
        yield from _constant_nodes(function.node)


def constant_of(node: NodeProto) -> TensorProto | None:
    """What a Constant holds; None where that is no tensor and no numbers, or the node is another."""
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
    """The inputs that a caller passes: in old files, initializers are listed as inputs, too."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def producers_of(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    """The node that makes each value, without those in bodies."""
    return {name: node for node in nodes for name in node.output if name}


def node_label(node: NodeProto) -> str:
    """A node's name for people.  protobuf returns a name that is not UTF-8 as bytes."""
    return str(node.name) or f"{node.op_type} that makes {', '.join(map(str, filter(None, node.output)))}"


def node_name(node: NodeProto) -> str:
    """A node's name; of a node without one, the first value that it makes: an output that is left out is named ""."""
    return str(node.name or next(filter(None, node.output), ""))


def is_handed_on(body: GraphProto, before: str, after: str) -> bool:
    """Whether a body gives out the value `after` as the value `before` came in, if by copies of it."""
    copies = {node.output[0]: node.input[0] for node in body.node if node.op_type == "Identity"}
    for _ in copies:
        after = copies.get(after, after)
    return after == before


def rename_values(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Give values other names in nodes and their bodies, in which a name means the same: ONNX forbids to reuse it."""
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
    """The nodes that values depend on, of nodes in order; and these values with all that the nodes read."""
    wanted, kept = set(values), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= {*node.input, *outer_values(node)} - {""}
    return kept[::-1], wanted


def repeating_node(
    value: str, producer: Callable[[str], NodeProto | None], steps: int = _MOST_STEPS
) -> NodeProto | None:
    """The Expand or Tile that a value, or a part of it, comes from by nothing but changes of shape.

    Args:
        value: the value.
        producer: gives the node that makes a value; None for an input or a stored tensor.
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
    """The nodes so that each comes after those whose values it reads; of a circle, in any order."""
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
    """How many nodes the model has once its functions are inlined; one that calls itself counts as one node.

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
