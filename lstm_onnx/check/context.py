"""What rules read: the model as stored and with inferred shapes, its constants, and the readers of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from ..errors import ConfigError
from ..metadata import Metadata
from ..onnxgraph import ONNX_ERRORS, Scope, attributes_of, error_line, graphs_of, is_default, typed
from ..onnxgraph.load import entries_of
from ..onnxgraph.nodes import constant_of
from ..onnxgraph.recurrent import GATES, input_of, is_onnx_operator, is_operator
from ..onnxgraph.shape_inference import with_axis_names, with_shapes, without_weights
from .graph import Graph

OVER_STEPS = frozenset({*GATES, "Loop", "Scan"})
"""Operators that compute step by step, which engines for parallel work do not have."""
_SMALL = 1024
_FOLLOWED = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze"})
_MOST_FOLLOWED = 8


@dataclass(frozen=True)
class CheckContext:
    """A file that is being checked.

    Attributes:
        file: its path.
        model: as stored, without external data.
        shaped: with every shape that follows from the inputs, functions inlined, and without large weights.
        metadata: the metadata; None if it is damaged.
        metadata_problem: how it is damaged, or "".
        provider: as requested; once the model was opened, where it runs.
        shapes_problem: why no shapes could be inferred, or "".
    """

    file: str
    model: ModelProto
    shaped: ModelProto
    metadata: Metadata | None = None
    metadata_problem: str = ""
    provider: str = "cpu"
    shapes_problem: str = ""

    @classmethod
    def of(cls, file: str, model: ModelProto, provider: str) -> CheckContext:
        """A file, with its metadata parsed and its shapes inferred as far as possible."""
        metadata, metadata_problem, shaped, shapes_problem = None, "", model, ""
        try:
            metadata = Metadata.from_metadata(entries_of(model))
        except ConfigError as error:
            metadata_problem = str(error)
        try:
            shaped = with_shapes(without_weights(model))
        except ONNX_ERRORS as error:
            shapes_problem = error_line(error)
        return cls(file, model, shaped, metadata, metadata_problem, provider, shapes_problem)

    @cached_property
    def graph(self) -> Graph:
        """The graph of `shaped`."""
        return Graph(self.shaped)

    @cached_property
    def batches(self) -> Mapping[str, str]:
        """As `Graph.batches`; an input's axis without a name is called by its `axis_name`.

        Raises:
            ONNX_ERRORS (see `load`): the graph is damaged.
        """
        named = with_axis_names(without_weights(self.model))
        return self.graph.batches if named is None or self.shapes_problem else Graph(with_shapes(named)).batches

    @cached_property
    def constants(self) -> Mapping[Scope, Mapping[str, np.ndarray]]:
        """The small stored tensors of each graph by name: shapes, axes, counts and flags; bodies may share names."""
        return {scope: dict(_small_constants(scope.graph)) for scope in self.graph.scopes}

    @property
    def ours(self) -> bool:
        """Whether the metadata says that lstm-onnx wrote the file."""
        return self.metadata is not None and "lstm_onnx" in self.metadata.versions

    @property
    def nodes(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node, including those in bodies."""
        for scope in self.graph.scopes:
            for node in scope.nodes:
                yield scope, node

    def onnx_nodes(self, *op_types: str) -> Iterator[tuple[Scope, NodeProto]]:
        """Every node of these ONNX operators."""
        return ((scope, node) for scope, node in self.nodes if node.op_type in op_types and is_default(node.domain))

    @property
    def onnx_operators(self) -> Iterator[tuple[Scope, NodeProto]]:
        """Every LSTM, GRU and RNN of ONNX."""
        return ((scope, node) for scope, node in self.nodes if is_onnx_operator(node))

    @property
    def operators(self) -> Iterator[tuple[Scope, NodeProto]]:
        """The same, and ONNX Runtime's int8 LSTMs, whose first eight inputs are the same."""
        return ((scope, node) for scope, node in self.nodes if is_operator(node))

    @property
    def float64_layers(self) -> Iterator[NodeProto]:
        """Every operator and Scan that reads float64."""
        for scope, node in self.graph.recurrent:
            if any(scope.dtype(name) == "float64" for name in node.input if name):
                yield node

    def opset(self, domain: str = "") -> int:
        """The version of a domain that the file requires; 0 if it requires none."""
        same = (
            item.version
            for item in self.model.opset_import
            if item.domain == domain or (is_default(domain) and is_default(item.domain))
        )
        return next(same, 0)

    def constant(self, scope: Scope, name: str) -> np.ndarray | None:
        """The value `name` if it is a small constant, also after a Cast or the like."""
        for _ in range(_MOST_FOLLOWED):
            home = scope.home(name)
            if home is not None and name in home.tensors:
                return self.constants.get(home, {}).get(name)
            node = scope.producer(name)
            if node is None or node.op_type not in _FOLLOWED or not node.input:
                return None
            name = node.input[0]
        return None

    def integers(self, scope: Scope, name: str) -> list[int] | None:
        """`constant` as a list of integers; None for anything else."""
        value = self.constant(scope, name)
        return [int(item) for item in value.ravel()] if value is not None and value.dtype.kind in "iu" else None

    def slices(self, scope: Scope, node: NodeProto) -> list[tuple[int, int, int, int]]:
        """(axis, start, end, step) of a Slice with constant bounds, which are inputs or attributes; otherwise empty."""
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
        """The nodes that read a value, with the input's index; a body may read values of outer graphs."""
        readers: dict[str, list[tuple[Scope, NodeProto, int]]] = {}
        for scope, node in self.nodes:
            for index, name in enumerate(node.input):
                if name:
                    readers.setdefault(name, []).append((scope, node, index))
        return readers

    def is_used(self, name: str) -> bool:
        """Whether a node reads the value, or it is an output of a graph."""
        return bool(name) and (name in self.readers or name in self._graph_outputs)

    def is_output(self, name: str) -> bool:
        """Whether it is an output of a graph."""
        return name in self._graph_outputs

    @cached_property
    def _graph_outputs(self) -> frozenset[str]:
        return frozenset(item.name for graph in graphs_of(self.shaped.graph) for item in graph.output)


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first names, and whether there are more: ``a, b, ...``."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


def _small_constants(graph: GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    made = [(str(node.output[0]), constant_of(node)) for node in graph.node if node.output]
    for name, tensor in (*((item.name, item) for item in graph.initializer), *made):
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL or not 0 <= prod(tensor.dims) <= _SMALL:
            continue
        try:
            yield name, numpy_helper.to_array(tensor)
        except ONNX_ERRORS:
            continue  # damaged: the rule valid-onnx reports it
