"""A model's graph as the rules look at it: its ends, its scopes, and what carries a state over time."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto

from ..onnxgraph import Dim, Scope, attributes_of, shape_of, typed

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
_LENGTHS = slice(4, 5)
_INITIAL_STATES = slice(5, 7)
"""Where these operators take initial_h and, an LSTM, initial_c."""


class Graph:
    """A model's graph as the rules look at it."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = {value.name: value.type for value in graph.input if value.name not in constants}
        self.outputs = {value.name: value.type for value in graph.output}
        self.scopes = tuple(Scope.of(graph).walk())

    @property
    def axes(self) -> set[str]:
        """The names of the inputs' open axes."""
        return {dim for kind in self.inputs.values() for dim in shape_of(kind) or () if isinstance(dim, str)}

    @property
    def recurrent(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node that carries a state over time, also in subgraphs."""
        for scope in self.scopes:
            for node in scope.nodes:
                if node.op_type in (*_OPERATORS, "Scan"):
                    yield scope, node

    @property
    def batches(self) -> dict[str, str]:
        """The axes that are the batch of an LSTM, GRU or RNN, each with the first of its names.

        The operator wants one batch in its input, its initial states and its lengths.  Others give it
        a name in each input of the model (tf2onnx, torch.onnx.export where it makes the names).
        """
        together = [set(shape_of(kind) or ()) for kind in self.inputs.values()]
        names: dict[str, str] = {}
        for scope, node in self.recurrent:
            for dim in _batch_dims(scope, node):
                first = names.setdefault(next(_batch_dims(scope, node)), dim)
                # Two axes of one input are two sizes: a state that was made of the wrong one is a mistake.
                if not any({dim, first} <= axes for axes in together if dim != first):
                    old = names.setdefault(dim, dim)
                    names.update({name: first for name, group in names.items() if group == old})
        return names


def _batch_dims(scope: Scope, node: NodeProto) -> Iterator[str]:
    """The names of the batch in an operator's input, initial states and lengths."""
    if node.op_type == "Scan":
        return
    axis = batch_axis(node)
    places = [(name, axis) for name in (*node.input[:1], *node.input[_INITIAL_STATES])]
    for name, at in (*places, *((name, 0) for name in node.input[_LENGTHS])):
        if name and isinstance(dim := dim_of(scope, name, at), str):
            yield dim


def dim_of(scope: Scope, name: str, axis: int) -> Dim:
    """What is known of one axis of a value."""
    shape = scope.shape(name) or ()
    return shape[axis] if axis < len(shape) else None


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


def end_of(scope: Scope, output: str) -> str:
    """What an output is taken from; of layers that are joined, the first."""
    name, _ = scope.source(output)
    node = scope.producer(name)
    return scope.source(node.input[0])[0] if node is not None and node.op_type == "Concat" and node.input else name
