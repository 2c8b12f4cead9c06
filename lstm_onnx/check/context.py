"""What the rules look at: the model as stored and as inferred, its constants, who reads which value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..metadata import Metadata
from ..onnxgraph import Scope, attributes_of, graphs_of, is_default, typed
from .graph import ONNX_ERRORS, Graph
from .inference import bare, inferred
from .report import words

RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""ONNX's recurrent operators, and their gates."""
QUANTISED = "DynamicQuantizeLSTM"
LENGTHS, INITIAL_H, INITIAL_C, PEEPHOLES = 4, 5, 6, 7
"""Where these operators take sequence_lens, initial_h and, an LSTM, initial_c and P."""
END = 2**31 - 1
"""What exporters write for the end of an axis, or more."""
_SMALL = 1024
_FOLLOWED = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze"})
_LONGEST_WAY = 8


@dataclass(frozen=True)
class Subject:
    """A file that is being checked.

    `model` is as stored; `shaped` has every shape that follows from the inputs, functions are inlined
    in it and large weights bare; `metadata` is None where the metadata is damaged; `provider` is what was
    asked for, or where the model was opened; `shapeless` says why no shapes could be inferred.
    """

    file: str
    model: ModelProto
    shaped: ModelProto
    metadata: Metadata | None = None
    provider: str = "cpu"
    shapeless: str = ""

    @classmethod
    def of(cls, file: str, model: ModelProto, metadata: Metadata | None, provider: str) -> Subject:
        """The file as far as its shapes can be inferred."""
        try:
            return cls(file, model, inferred(bare(model)), metadata, provider)
        except ONNX_ERRORS as error:
            return cls(file, model, model, metadata, provider, words(error))

    @cached_property
    def graph(self) -> Graph:
        """What `shaped` consists of."""
        return Graph(self.shaped)

    @cached_property
    def constants(self) -> Mapping[str, np.ndarray]:
        """The small tensors that it stores, by name: what shapes, axes, counts and flags are made of."""
        return dict(_small_constants(self.shaped))

    @property
    def ours(self) -> bool:
        """Whether lstm-onnx wrote it, and its metadata says so."""
        return self.metadata is not None and "lstm_onnx" in self.metadata.versions

    @property
    def nodes(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node, those of bodies included."""
        for scope in self.graph.scopes:
            for node in scope.nodes:
                yield scope, node

    @property
    def recurrent(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every LSTM, GRU and RNN of ONNX's own."""
        for scope, node in self.nodes:
            if node.op_type in RECURRENT and is_default(node.domain):
                yield scope, node

    @property
    def layers(self) -> Iterator[tuple[Scope, NodeProto]]:
        """The same, and the LSTMs that ONNX Runtime's quantiser makes of them, with the same places of their inputs."""
        for scope, node in self.nodes:
            if is_layer(node):
                yield scope, node

    def opset(self, domain: str = "") -> int:
        """The version of a domain that the file asks for; 0 where it asks for none."""
        same = (
            item.version
            for item in self.model.opset_import
            if item.domain == domain or (is_default(domain) and is_default(item.domain))
        )
        return next(same, 0)

    def constant(self, scope: Scope, name: str) -> np.ndarray | None:
        """The value `name` where it is a small constant, also through a Cast or the like."""
        for _ in range(_LONGEST_WAY):
            home = scope.home(name)
            if home is not None and name in home.tensors:
                return self.constants.get(name)
            node = scope.producer(name)
            if node is None or node.op_type not in _FOLLOWED or not node.input:
                return None
            name = node.input[0]
        return None

    def integers(self, scope: Scope, name: str) -> list[int] | None:
        """The same as a list of integers; None for anything else."""
        value = self.constant(scope, name)
        return [int(item) for item in value.ravel()] if value is not None and value.dtype.kind in "iu" else None

    def slices(self, scope: Scope, node: NodeProto) -> list[tuple[int, int, int, int]]:
        """(axis, start, end, step) of a Slice by constants, in either of its forms; empty for another."""
        attributes = attributes_of(node)
        starts = typed(attributes, "starts", list) or self.integers(scope, input_of(node, 1))
        ends = typed(attributes, "ends", list) or self.integers(scope, input_of(node, 2))
        if not starts or not ends or len(starts) != len(ends):
            return []
        axes = typed(attributes, "axes", list) or self.integers(scope, input_of(node, 3)) or list(range(len(starts)))
        steps = self.integers(scope, input_of(node, 4)) or [1] * len(starts)
        return list(zip(axes, starts, ends, steps, strict=False))

    @cached_property
    def readers(self) -> dict[str, list[tuple[Scope, NodeProto, int]]]:
        """Who takes a value, and as which input; a body sees the values around it."""
        found: dict[str, list[tuple[Scope, NodeProto, int]]] = {}
        for scope, node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((scope, node, index))
        return found

    def is_used(self, name: str) -> bool:
        """Whether anybody reads the value, or a graph hands it out."""
        return bool(name) and (name in self.readers or name in self._handed_out)

    @cached_property
    def _handed_out(self) -> frozenset[str]:
        return frozenset(item.name for graph in graphs_of(self.shaped.graph) for item in graph.output)


def is_layer(node: NodeProto) -> bool:
    """Whether it is an LSTM, GRU or RNN of ONNX's own, or ONNX Runtime's int8 LSTM."""
    return (node.op_type in RECURRENT and is_default(node.domain)) or node.op_type == QUANTISED


def label(node: NodeProto) -> str:
    """A node for people.  A name that is not UTF-8 comes as bytes."""
    return str(node.name) or f"{node.op_type} that makes {', '.join(map(str, node.output))}"


def input_of(node: NodeProto, index: int) -> str:
    """The name of an input, "" where it is left out."""
    return str(node.input[index]) if index < len(node.input) else ""


def stored(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Every stored tensor by its name: initializers and Constant nodes, bodies and functions included."""
    for graph in graphs_of(model.graph):
        for tensor in graph.initializer:
            yield str(tensor.name), tensor
        yield from _constants(graph.node)
    for function in model.functions:
        yield from _constants(function.node)


def _constants(nodes: Iterable[NodeProto]) -> Iterator[tuple[str, TensorProto]]:
    for node in nodes:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    yield str(node.output[0]), attribute.t


def _small_constants(model: ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    for name, tensor in stored(model):
        if tensor.data_location != TensorProto.EXTERNAL and 0 <= prod(tensor.dims) <= _SMALL:
            try:
                yield name, numpy_helper.to_array(tensor)
            except ONNX_ERRORS:
                continue  # damaged; onnx's checker says so
    for graph in graphs_of(model.graph):
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                for item in node.attribute:
                    if item.name in ("value_int", "value_ints"):
                        values = item.ints if item.name == "value_ints" else item.i
                        yield str(node.output[0]), np.array(values, np.int64)
