"""A model's graph for the rules: inputs, outputs, scopes, their recurrent nodes, and the axes that are the batch."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import ModelProto, NodeProto

from ..onnxgraph import Scope, shape_of
from ..onnxgraph.nodes import inputs_of
from ..onnxgraph.recurrent import INITIAL_C, INITIAL_H, SEQUENCE_LENS, batch_axis, input_of, is_operator, is_scan


class Graph:
    """A model's graph; `inputs` are without initializers, `scopes` are the graph and all bodies."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.inputs = {value.name: value.type for value in inputs_of(graph)}
        self.outputs = {value.name: value.type for value in graph.output}
        self.scopes = tuple(Scope.of(graph).walk())

    @property
    def axes(self) -> set[str]:
        """The names of the inputs' dynamic axes."""
        return {dim for kind in self.inputs.values() for dim in shape_of(kind) or () if isinstance(dim, str)}

    @property
    def recurrent(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node that carries a state over time: LSTM, GRU, RNN, int8 LSTM, Scan."""
        for scope in self.scopes:
            for node in scope.nodes:
                if is_operator(node) or is_scan(node):
                    yield scope, node

    @property
    def batches(self) -> dict[str, str]:
        """The axes that are the batch of a recurrent operator, each with the first name of the same axis.

        Input, initial states and lengths of an operator have one batch; some exporters (tf2onnx, torch.onnx.export
        with generated names) give it another name in each input of the model.
        """
        together = [set(shape_of(kind) or ()) for kind in self.inputs.values()]
        names: dict[str, str] = {}
        for scope, node in self.recurrent:
            dims = list(_batch_dims(scope, node))
            for dim in dims:
                first = names.setdefault(dims[0], dim)
                # Two axes of one input are two sizes: a state made from the wrong one is a mistake.
                if not any({dim, first} <= axes for axes in together if dim != first):
                    old = names.setdefault(dim, dim)
                    names.update({name: first for name, group in names.items() if group == old})
        return names


def _batch_dims(scope: Scope, node: NodeProto) -> Iterator[str]:
    """The names of the batch axis in an operator's input, initial states and lengths."""
    if is_scan(node):
        return
    axis = batch_axis(node)
    for index, at in ((0, axis), (INITIAL_H, axis), (INITIAL_C, axis), (SEQUENCE_LENS, 0)):
        name = input_of(node, index)
        if name and isinstance(dim := scope.dim(name, at), str):
            yield dim


def end_of(scope: Scope, output: str) -> str:
    """The value from which an output is taken; if layers are concatenated, the first."""
    name, _ = scope.source(output)
    node = scope.producer(name)
    return scope.source(node.input[0])[0] if node is not None and node.op_type == "Concat" and node.input else name
