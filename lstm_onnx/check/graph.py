"""A model's graph as the rules look at it: its ends, its scopes, and what carries a state over time."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, inliner

from ..onnxgraph import Scope, attributes_of, typed

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
_INITIAL_STATES = slice(5, 7)
"""Where these operators take initial_h and, an LSTM, initial_c."""
_LARGE_TENSOR = 2**16


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


class Graph:
    """A model's graph as the rules look at it."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name: value.type for value in graph.input if value.name not in constants}
        self.outputs = {value.name: value.type for value in graph.output}
        self.scopes = tuple(Scope.of(graph).walk())

    @property
    def recurrent(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node that carries a state over time, also in subgraphs."""
        for scope in self.scopes:
            for node in scope.nodes:
                if node.op_type in (*_OPERATORS, "Scan"):
                    yield scope, node


def scanned(node: NodeProto) -> list[str]:
    """What a Scan goes through step by step."""
    count = typed(attributes_of(node), "num_scan_inputs", int)
    return list(node.input[len(node.input) - count :]) if count else []


def initial_states(node: NodeProto) -> list[str]:
    """What a recurrent node starts from; empty where it is left out."""
    return list(
        node.input[: len(node.input) - len(scanned(node))] if node.op_type == "Scan" else node.input[_INITIAL_STATES]
    )


def batch_axis(node: NodeProto) -> int:
    """Where the input of an LSTM, GRU or RNN has its batch; the time is beside it."""
    return 0 if typed(attributes_of(node), "layout", int) == 1 else 1
