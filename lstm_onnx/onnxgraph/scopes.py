"""Traces values through nested graphs to their source: a stored tensor, an input of the model, or an operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onnx import GraphProto, NodeProto, TypeProto

from .nodes import bodies_of, outer_values, producers_of
from .recurrent import PSEUDO_INVERSE
from .tensors import Dim, Shape, Tensor, attributes_of, dtype_name, shape_of, typed

_MOVES_DATA = frozenset(
    {"Cast", "CastLike", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze"}
)
"""Operators that only rearrange the elements of their first input."""
_SHAPE_ONLY = frozenset({"Shape", "Size"})
"""Operators that read only the shape of their input."""
_KEEPS_SHAPE = frozenset({"Cast", "CastLike", "DequantizeLinear", "Identity"})
"""Operators that do not change the shape of a stored weight."""


class Weight(NamedTuple):
    """A weight as an operator reads it: the stored tensor or None, its known dimensions, and the dtype as read."""

    tensor: Tensor | None
    dims: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Scope:
    """A graph and the sources of its values; a body belongs to the node `caller` of the graph `parent`."""

    graph: GraphProto
    nodes: Sequence[NodeProto]
    inputs: list[str]
    tensors: dict[str, Tensor]
    stored: list[Tensor]
    producers: dict[str, NodeProto]
    types: dict[str, TypeProto]
    known: frozenset[str]
    parent: Scope | None
    caller: NodeProto | None

    @classmethod
    def of(cls, graph: GraphProto, parent: Scope | None = None, caller: NodeProto | None = None) -> Scope:
        """The scope for the model's graph, or for a body."""
        tensors = {tensor.name: Tensor.of(tensor) for tensor in graph.initializer}
        sparse = [Tensor.of(item.values) for item in graph.sparse_initializer]
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                tensors.update((node.output[0], Tensor.of_constant(item)) for item in node.attribute)
        producers = producers_of(graph.node)
        inputs = [item.name for item in graph.input]
        types = {item.name: item.type for item in (*graph.value_info, *graph.input, *graph.output)}
        known = frozenset((*tensors, *producers, *inputs))
        return cls(
            graph, graph.node, inputs, tensors, [*tensors.values(), *sparse], producers, types, known, parent, caller
        )

    def bodies(self, node: NodeProto) -> Iterator[Scope]:
        """The scopes of the bodies of a node in this graph."""
        return (Scope.of(graph, self, node) for graph in bodies_of(node))

    def home(self, name: str) -> Scope | None:
        """The innermost graph, seen from this one, that defines the value `name`."""
        scope: Scope | None = self
        while scope is not None and name not in scope.known:
            scope = scope.parent
        return scope

    def walk(self) -> Iterator[Scope]:
        """This graph and all nested bodies, in the file's order."""
        yield self
        for node in self.nodes:
            for body in self.bodies(node):
                yield from body.walk()

    @property
    def top(self) -> Scope:
        """The model's own graph."""
        return self if self.parent is None else self.parent.top

    def producer(self, name: str) -> NodeProto | None:
        """The node that computes the value `name`; None for inputs and stored tensors."""
        home = self.home(name)
        return home.producers.get(name) if home is not None else None

    def shape(self, name: str) -> Shape | None:
        """The dimensions of the value `name` as far as known; None if its rank is unknown."""
        home = self.home(name)
        if home is None:
            return None
        said = shape_of(home.types[name]) if name in home.types else None
        tensor = home.tensors.get(name) if said is None and name not in home.producers else None
        return tensor.dims if tensor is not None else said

    def dim(self, name: str, axis: int) -> Dim:
        """The size of one axis of the value `name`; None if it is unknown."""
        shape = self.shape(name) or ()
        return shape[axis] if axis < len(shape) else None

    def dtype(self, name: str) -> str:
        """The dtype of the value `name`; "unknown" if the file does not say."""
        home = self.home(name)
        kind = home.types.get(name) if home is not None else None
        return dtype_name(kind.tensor_type.elem_type) if kind is not None else "unknown"

    def weight(self, name: str) -> Weight:
        """The weight from which the value `name` is made."""
        dtype = ""
        home = self.home(name)
        for _ in range(8):  # a bound, so that a damaged file's cycle ends, too
            if home is None or name in home.tensors:
                break
            node = home.producers.get(name)
            if node is None or node.op_type not in _KEEPS_SHAPE or not node.input:
                axes = (shape_of(home.types[name]) if name in home.types else None) or ()
                fixed = tuple(axis for axis in axes if isinstance(axis, int))
                return Weight(None, fixed if len(fixed) == len(axes) else (), dtype)
            if node.op_type == "Cast":
                dtype = dtype or dtype_name(typed(attributes_of(node), "to", int))
            name = node.input[0]
            home = home.home(name)
        tensor = home.tensors.get(name) if home else None
        return Weight(tensor, tensor.dims, dtype or dtype_name(tensor.elem_type)) if tensor else Weight(None, (), dtype)

    def branch_values(self, node: NodeProto, name: str) -> list[tuple[Scope, str]]:
        """The values in the branches of an If in this graph that become its output `name`, each with its branch."""
        index = list(node.output).index(name)
        return [
            (Scope.of(graph, self, node), str(value.name))
            for graph in bodies_of(node)
            for value in graph.output[index : index + 1]
        ]

    def source(self, name: str) -> tuple[str, set[str]]:
        """The source of `name`, in this graph or those around it, and the operators on the way.

        A product with a matrix counts as passing its first operand on, since the result has its time and batch axes.
        """
        seen: set[str] = set()
        passed: set[str] = set()
        while name not in seen:
            seen.add(name)
            node = self.producer(name)
            if node is None or node.op_type not in _MOVES_DATA | {"MatMul"} or not node.input:
                break
            passed.add(node.op_type)
            name = node.input[0]
        return name, passed

    def data_sources(self, name: str) -> set[str]:
        """The model's inputs from whose values, not only shapes, `name` is computed."""
        found: set[str] = set()
        todo, seen = [(self, name)], set()
        while todo:
            asking, name = todo.pop()
            home = asking.home(name)
            if home is None or (home, name) in seen:
                continue
            seen.add((home, name))
            node = home.producers.get(name)
            if node is None:
                # A body's inputs are among its node's, in an order that depends on the operator.
                outer = home.caller.input if home.caller is not None and name in home.inputs else []
                todo += [(home.parent, item) for item in outer if home.parent is not None]
                found |= {name} if home.parent is None and name not in home.tensors else set()
            elif node.op_type not in _SHAPE_ONLY:
                # Bodies, including nested ones, also read values of the outer graphs, which are not their inputs.
                todo += [(home, item) for item in (*node.input, *outer_values(node)) if item]
        return found

    def origins(self, name: str) -> tuple[list[str], list[str]]:
        """The model's inputs from which `name` is taken, and the operators that compute it where it is not taken."""
        inputs: list[str] = []
        computed: list[str] = []
        todo, seen = [(self, name)], set()
        while todo:
            asking, name = todo.pop()
            home = asking.home(name)
            if not name or home is None or (home, name) in seen or name in home.tensors:
                continue
            seen.add((home, name))
            node = home.producers.get(name)
            if node is not None and node.op_type == "If":
                todo += home.branch_values(node, name)
            elif node is not None:
                sources = _sources(node)
                computed += [node.op_type] if sources is None else []
                todo += [(home, source) for source in reversed(sources or [])]
            elif home.parent is None or home.caller is None:
                inputs.append(name)
            else:
                # The inputs of a Loop's or Scan's body are in the order of the node's own inputs.
                index = home.inputs.index(name)
                todo += [(home.parent, source) for source in home.caller.input[index : index + 1]]
        return inputs, computed


def _sources(node: NodeProto) -> list[str] | None:
    """The inputs whose elements the node passes on; None if it computes new values."""
    if node.op_type in _MOVES_DATA:
        return list(node.input[:1])
    if node.op_type == "Concat":
        return list(node.input)
    if node.op_type == "Less":  # steps < lengths, the mask of lstm-onnx's Scan
        return list(node.input[1:])
    if node.op_type == "MatMul" and len(node.input) == 2 and str(node.input[1]).endswith(PSEUDO_INVERSE):
        return list(node.input[:1])
    return [] if node.op_type == "ConstantOfShape" else None
