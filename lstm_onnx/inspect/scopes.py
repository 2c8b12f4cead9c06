"""Graphs within graphs, and where a value comes from: a stored tensor, a model's input, an operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onnx import AttributeProto, GraphProto, NodeProto

from .report import Value
from .tensors import Tensor, attributes_of, dtype_name, typed, value_of

_MOVES_DATA = frozenset(
    {"Cast", "CastLike", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze"}
)
"""Operators whose result is their first input, moved about."""
_KEEPS_SHAPE = frozenset({"Cast", "CastLike", "DequantizeLinear", "Identity"})
"""Operators behind which a stored weight keeps its shape."""


class Weight(NamedTuple):
    """What an operator takes for a weight: the stored tensor or None, its dimensions where known, its dtype in use."""

    tensor: Tensor | None
    dims: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Scope:
    """A graph and where its values come from; `caller` is the node whose body it is, in `parent`."""

    nodes: Sequence[NodeProto]
    inputs: list[str]
    tensors: dict[str, Tensor]
    stored: list[Tensor]
    producers: dict[str, NodeProto]
    types: dict[str, Value]
    known: frozenset[str]
    parent: Scope | None
    caller: NodeProto | None

    @classmethod
    def of(cls, graph: GraphProto, parent: Scope | None = None, caller: NodeProto | None = None) -> Scope:
        """The model's graph, or a body.

        Raises:
            ModelError: a tensor has a negative dimension.
        """
        tensors = {tensor.name: Tensor.of(tensor) for tensor in graph.initializer}
        sparse = [Tensor.of(item.values) for item in graph.sparse_initializer]
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                tensors.update((node.output[0], Tensor.of_constant(item)) for item in node.attribute)
        producers = {output: node for node in graph.node for output in node.output if output}
        inputs = [item.name for item in graph.input]
        types = {item.name: value_of(item) for item in (*graph.value_info, *graph.input, *graph.output)}
        known = frozenset((*tensors, *producers, *inputs))
        return cls(graph.node, inputs, tensors, [*tensors.values(), *sparse], producers, types, known, parent, caller)

    def bodies(self, node: NodeProto) -> Iterator[Scope]:
        """The graphs within a node of this one."""
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs
            yield from (Scope.of(graph, self, node) for graph in graphs)

    def home(self, name: str) -> Scope | None:
        """The innermost graph that defines the value `name`, as seen from this one."""
        scope: Scope | None = self
        while scope is not None and name not in scope.known:
            scope = scope.parent
        return scope

    def dtype(self, name: str) -> str:
        """What the file says of the value `name`, "unknown" where it says nothing."""
        home = self.home(name)
        return home.types[name].dtype if home is not None and name in home.types else "unknown"

    def weight(self, name: str) -> Weight:
        """What is stored behind the value `name`."""
        dtype = ""
        home = self.home(name)
        for _ in range(8):  # a cycle ends here, too
            if home is None or name in home.tensors:
                break
            node = home.producers.get(name)
            if node is None or node.op_type not in _KEEPS_SHAPE or not node.input:
                axes = home.types[name].axes if name in home.types else ()
                fixed = tuple(axis for axis in axes if isinstance(axis, int))
                return Weight(None, fixed if len(fixed) == len(axes) else (), dtype)
            if node.op_type == "Cast":
                dtype = dtype or dtype_name(typed(attributes_of(node), "to", int))
            name = node.input[0]
            home = home.home(name)
        tensor = home.tensors.get(name) if home else None
        return Weight(tensor, tensor.dims, dtype or dtype_name(tensor.elem_type)) if tensor else Weight(None, (), dtype)

    def origins(self, name: str) -> tuple[list[str], list[str]]:
        """The model's inputs that `name` is taken from, and the operators that compute it where it is not."""
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
            if node is not None:
                sources = _sources(node)
                computed += [node.op_type] if sources is None else []
                todo += [(home, source) for source in reversed(sources or [])]
            elif home.parent is None or home.caller is None:
                inputs.append(name)
            else:
                # A Loop's and a Scan's body takes its inputs in the order of the node's own.
                index = home.inputs.index(name)
                todo += [(home.parent, source) for source in home.caller.input[index : index + 1]]
        return inputs, computed


def _sources(node: NodeProto) -> list[str] | None:
    """The inputs whose content the node hands on; None where it computes something new."""
    if node.op_type in _MOVES_DATA:
        return list(node.input[:1])
    if node.op_type == "Concat":
        return list(node.input)
    if node.op_type == "Less":  # steps < lengths, the mask of our Scan
        return list(node.input[1:])
    if node.op_type == "MatMul" and len(node.input) == 2 and node.input[1].endswith("/W_hr_pinv"):  # our fold
        return list(node.input[:1])
    return [] if node.op_type == "ConstantOfShape" else None
