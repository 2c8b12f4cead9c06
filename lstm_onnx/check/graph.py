"""A model's graph as the rules look at it: subgraphs, shapes, and where a value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, inliner

ONNX_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.defs.SchemaError,
    DecodeError,
    EncodeError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    OSError,
    MemoryError,
)
"""What the onnx package raises about a model; its C++ errors share no base but Exception."""
_OPERATORS = ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
_PASSING = ("Cast", "Gather", "Identity", "MatMul", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
"""Operators through which a value is still its first input in another form."""
_LARGE_TENSOR = 2**16

Dim = int | str | None
Shape = tuple[Dim, ...]


def inferred(model: ModelProto) -> ModelProto:
    """`model` with every shape that follows from its inputs; large weights are dropped on the way."""
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _LARGE_TENSOR:
            bare = TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            bare.data_location = TensorProto.EXTERNAL
            tensor.CopyFrom(bare)
    if model.functions:
        model = inliner.inline_local_functions(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


@dataclass(frozen=True)
class Scope:
    """One graph, or a subgraph with what it sees of those around it."""

    graph: GraphProto
    shapes: Mapping[str, Shape]
    producers: Mapping[str, NodeProto]


class Graph:
    """A model's graph as the rules look at it."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name: value.type for value in graph.input if value.name not in constants}
        self.outputs = {value.name: value.type for value in graph.output}
        self.scopes = tuple(_scopes(graph, {}, {}))

    @property
    def recurrent(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node that carries a state over time, also in subgraphs."""
        for scope in self.scopes:
            for node in scope.graph.node:
                if node.op_type in (*_OPERATORS, "Scan"):
                    yield scope, node

    def source(self, scope: Scope, value: str) -> tuple[str, set[str]]:
        """Where `value` comes from, and the operators it passes through on the way."""
        seen: set[str] = set()
        passed: set[str] = set()
        while value not in self.inputs and value not in seen:
            seen.add(value)
            node = scope.producers.get(value)
            if node is None or node.op_type not in _PASSING or not node.input:
                break
            passed.add(node.op_type)
            value = node.input[0]
        return value, passed


def _scopes(graph: GraphProto, shapes: Mapping[str, Shape], producers: Mapping[str, NodeProto]) -> Iterator[Scope]:
    own: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = shape_of(value.type)
        if shape is not None:
            own[value.name] = shape
    made = {name: node for node in graph.node for name in node.output if name}
    scope = Scope(graph, {**shapes, **own}, {**producers, **made})
    yield scope
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _scopes(inner, scope.shapes, scope.producers)


def shape_of(kind: TypeProto) -> Shape | None:
    """The dimensions of a tensor's type; None for another type or an unknown rank."""
    if not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)


def shown(shape: Shape | None) -> str:
    """As in ``(batch, time, 4)``."""
    if shape is None:
        return "of unknown shape"
    return f"({', '.join('?' if dim is None else str(dim) for dim in shape)})"


def attribute_of(node: NodeProto, name: str, default: Any) -> Any:
    """The node's attribute; `default` where it is absent or of another type."""
    for attribute in node.attribute:
        if attribute.name == name:
            value = helper.get_attribute_value(attribute)
            return value if isinstance(value, type(default)) else default
    return default
