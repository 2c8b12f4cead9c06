"""Rewrites a float32 model: nodes with a constant weight become int8 nodes, all others stay unchanged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from ..checksum import KEY, is_intact
from ..errors import ModelError
from ..metadata import Metadata, Quantization
from ..onnxgraph import attributes_of, bodies_of, graphs_of, node_name, nodes_of
from ..onnxgraph.builder import Nodes
from ..onnxgraph.load import metadata_of, opset_of
from ..onnxgraph.nodes import producers_of
from ..onnxgraph.recurrent import is_onnx_operator, read_layer
from .arithmetic import MOST_FEATURES
from .dynamic_lstm import add_dynamic_lstm
from .kernels import BLOCK_SIZES, CONTRIB, DYNAMIC_QUANTIZE_LSTM, MATMUL_INTEGER, MATMUL_NBITS
from .layers import Embedding, Linear, add_embedding, add_linear
from .loop_constants import inline_loop_constants
from .operators import embedding_table, linear_weight, read_recurrent, why_not_linear
from .products import Graph, zero_points
from .recurrent import Layer, add_layer
from .weights import Weights

_LEAST_OPSET = 13
"""The first opset in which Unsqueeze and Split take their axes and sizes as inputs."""
_UNPROVEN = "it did not run on the inputs of its proof, or its values change their shapes in the steps of a Loop"


@dataclass(frozen=True)
class Rewritten:
    """A model with int8 layers.

    Attributes:
        model: without its initializers.
        initializers: those of the graph by name.
        kept: the nodes that stay float32, and why: recurrent ones, and others that cannot be proven.
        layers: the LSTM, GRU and RNN operators that are int8 now.
        linear: the same for MatMul and Gemm, including those in bodies.
        embeddings: the same for Gather.
        source_bytes: the size of the source's model and of its weights in files beside it.
    """

    model: ModelProto
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    linear: list[Linear] = field(default_factory=list)
    embeddings: list[Embedding] = field(default_factory=list)
    source_bytes: int = 0

    @property
    def quantized(self) -> tuple[str, ...]:
        """The names of the nodes that are int8 now."""
        return (
            *(layer.name for layer in self.layers),
            *(linear.name for linear in self.linear),
            *(embedding.name for embedding in self.embeddings),
        )


def quantize_model(
    model: ModelProto,
    path: str | os.PathLike[str],
    *,
    layers: str = "all",
    kernel: str = MATMUL_INTEGER,
    unproven: Sequence[str] = (),
) -> Rewritten:
    """The int8 form of a model that was read from `path`; `model` is changed.

    Args:
        model: with its functions inlined.
        path: its file, for weights beside it and for messages.
        layers: see `quantize`.
        kernel: see `quantize`.
        unproven: the names of nodes that stay float32, since their int8 form could not be compared.

    Raises:
        ModelError: it is already int8, its opset is too old, the kernel cannot compute a layer, or a file beside it
            cannot be read.
    """
    opset = opset_of(model)
    if opset < _LEAST_OPSET:
        raise ModelError(
            f"{path}: has opset {opset}, and int8 layers need {_LEAST_OPSET}; convert it with onnx.version_converter"
        )
    metadata = metadata_of(model, path)
    if metadata.quantization is not None:
        raise ModelError(f"{path}: is already int8; quantize the float32 file from which it was made")
    if metadata.generation is not None:
        raise ModelError(f"{path}: is a generating file; quantize its step's file, and pass that to make_generating")
    weights = Weights(model, path)
    done = Rewritten(model, source_bytes=model.ByteSize() + weights.external_bytes)
    if kernel == DYNAMIC_QUANTIZE_LSTM:
        _require_lstms(model, path)  # before the nodes are renamed
    _name_nodes(model)
    inline_loop_constants(model.graph, weights)
    added: dict[str, np.ndarray] = {}
    before = _names(model)
    rewriter = _Rewriter(done, weights, added, opset, layers == "all", _projected_inputs(model.graph), kernel, unproven)
    rewriter.rewrite(model.graph, None)
    remaining = weights.remaining(model.graph)
    _require_own_names(model, path, before, added, remaining)
    done.initializers.update(remaining | added)
    del model.graph.initializer[:]
    domains = {node.domain for node in nodes_of(model.graph.node)}
    if CONTRIB in domains and all(item.domain != CONTRIB for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    props = {item.key: item.value for item in model.metadata_props}
    if KEY in props and not is_intact(path):  # another tool has changed it since chunks and rows were compared
        for claim in ("not_streamable", "batch_mixes"):
            props.pop(f"lstm_onnx.{claim}", None)
    props.pop(KEY, None)
    quantized = Metadata(quantization=Quantization(kernel, layers, tuple(unproven)))
    helper.set_model_props(model, props | quantized.to_metadata_entry("quantization"))
    return done


@dataclass(frozen=True)
class _Names:
    """How often each node and value is named in all graphs of a model, and its inputs and bodies' constants."""

    nodes: Counter[str]
    made: Counter[str]
    given: frozenset[str]


def _names(model: ModelProto) -> _Names:
    graphs = list(graphs_of(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    given = {value.name for graph in graphs for value in graph.input}
    given |= {tensor.name for graph in graphs if graph is not model.graph for tensor in graph.initializer}
    return _Names(
        Counter(node.name for node in nodes), Counter(name for node in nodes for name in node.output), frozenset(given)
    )


def _require_own_names(
    model: ModelProto,
    path: str | os.PathLike[str],
    before: _Names,
    added: Mapping[str, np.ndarray],
    remaining: Mapping[str, np.ndarray],
) -> None:
    """Raise a ModelError if a value or node that was added has the name of another one.

    Args:
        model: with the added nodes.
        path: its file.
        before: its names without them.
        added, remaining: the initializers that were added, and those that stay.
    """
    after = _names(model)
    taken = before.given | before.made.keys() | remaining.keys()
    made = after.made - before.made
    constants = {name for name, array in added.items() if not _is_equal(array, remaining.get(name, array))}
    wrong = [
        *(name for name in made if name and name in taken),
        *(name for name in after.nodes - before.nodes if name in before.nodes),
        *(name for name in added if name in constants | before.given | after.made.keys()),
    ]
    if wrong:
        raise ModelError(
            f"{path}: has a value or a node named {wrong[0]}, a name that its int8 form needs",
            hint="rename it; or use --layers recurrent, if the name belongs to a Linear or Embedding layer",
        )


def _is_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def _require_lstms(model: ModelProto, path: str | os.PathLike[str]) -> None:
    """Raise a ModelError if the model has a recurrent layer that DynamicQuantizeLSTM cannot compute."""
    for graph in graphs_of(model.graph):
        producers = producers_of(graph.node)
        for node in graph.node:
            layer = read_layer(node, producers)
            kind = "" if layer is None else "a projected LSTM" if layer.W_hr else _WITH_ARTICLE[layer.op_type]
            if kind and kind != _WITH_ARTICLE["LSTM"]:
                raise ModelError(
                    f"{path}: {node_name(node)} is {kind}, and {DYNAMIC_QUANTIZE_LSTM} computes only LSTMs without "
                    f"projection; use kernel {MATMUL_INTEGER} or {MATMUL_NBITS}"
                )


def _name_nodes(model: ModelProto) -> None:
    """Give every node a unique name, which is the prefix of the names of its int8 nodes."""
    nodes = list(nodes_of(model.graph.node))
    taken = {node.name for node in nodes} | {value for node in nodes for value in node.output}
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    for node in nodes:
        wanted = str(node.name or node.op_type)
        name, number = wanted, numbers.get(wanted, 1)
        while name in seen or (number > 1 and name in taken) or (not node.name and name in taken):
            number += 1
            name = f"{wanted}_{number}"
        numbers[wanted] = number
        node.name = name
        seen.add(name)


_WITH_ARTICLE = {"LSTM": "an LSTM", "GRU": "a GRU", "RNN": "an RNN"}


@dataclass(frozen=True)
class _Rewriter:
    """Rewrites graphs, bodies first; see `quantize_model`.

    Attributes:
        initializers: those that are added.
        recurrent: the names of products that are part of a recurrent layer.
    """

    done: Rewritten
    weights: Weights
    initializers: dict[str, np.ndarray]
    opset: int
    all_layers: bool
    recurrent: frozenset[str]
    kernel: str
    unproven: Sequence[str]

    def rewrite(self, graph: GraphProto, caller: NodeProto | None, points: str = "", *, nested: bool = False) -> None:
        """Rewrite a graph, or a body of the node `caller`.

        Args:
            graph: the graph.
            caller: the node, or None.
            points: the zero points of a projected layer's rows.
            nested: whether the node is itself in a body.
        """
        kernel = self.kernel
        if kernel in BLOCK_SIZES and caller is not None and (nested or caller.op_type != "Scan"):
            kernel = MATMUL_INTEGER  # MatMulNBits rounds its rows differently there, which is not proven
        loop = caller is not None and caller.op_type in ("Scan", "Loop")
        nodes: list[NodeProto] = []
        for node in graph.node:
            at = Graph(Nodes(initializers=self.initializers), self.opset, kernel)
            within = self._points(at, graph, node)
            for body in bodies_of(node):
                self.rewrite(body, node, within, nested=caller is not None)
            recurrent = loop or node.name in self.recurrent
            if not self._add(at, node, caller.name if caller is not None else "", points, recurrent=recurrent):
                at.nodes.nodes.append(NodeProto.FromString(node.SerializeToString()))
            nodes += at.nodes.nodes
        del graph.node[:]
        graph.node.extend(nodes)

    def _points(self, at: Graph, graph: GraphProto, node: NodeProto) -> str:
        """The zero points of the rows for the Scan of a projected layer, added before it; "" for other nodes."""
        if node.op_type != "Scan" or at.kernel in BLOCK_SIZES:
            return ""
        layer = read_layer(node, producers_of(graph.node))
        state = next(bodies_of(node)).input[0].type.tensor_type.shape.dim
        if layer is None or len(state) != 3:
            return ""
        return zero_points(at, layer.x, f"{node.name}/zero_points")

    def _add(self, graph: Graph, node: NodeProto, caller: str, points: str, *, recurrent: bool) -> bool:
        """Add the int8 nodes of one node; returns whether there are any."""
        if node.name in self.unproven:
            self.done.kept[node.name] = _UNPROVEN
            return False
        if is_onnx_operator(node):
            layer = read_recurrent(node, self.weights)
            if isinstance(layer, str):
                self.done.kept[node.name] = layer
                return False
            if caller and graph.kernel in BLOCK_SIZES:
                graph = replace(graph, kernel=MATMUL_INTEGER)  # its own Scan is nested
            layer = replace(layer, kernel=graph.kernel, caller=caller)
            if self._may_overflow(graph, node, max(layer.W.shape[2], layer.hidden_size)):
                return False
            if graph.kernel == DYNAMIC_QUANTIZE_LSTM:
                add_dynamic_lstm(graph, layer)
            else:
                add_layer(graph, layer)
            self.done.layers.append(layer)
            return True
        if not (self.all_layers or recurrent):
            return False
        weight = linear_weight(node, self.weights)
        if weight is not None:
            transposed = bool(attributes_of(node).get("transB"))
            if self._may_overflow(graph, node, weight.shape[int(transposed)]):
                return False
            self.done.linear.append(add_linear(graph, node, weight, caller, points))
            return True
        if why := why_not_linear(node, self.weights):
            self.done.kept[node.name] = why
        table = None if caller else embedding_table(node, self.weights)
        if table is not None:
            self.done.embeddings.append(add_embedding(graph, node, table))
        return table is not None

    def _may_overflow(self, graph: Graph, node: NodeProto, features: int) -> bool:
        """Whether a node stays float32, since its sum of products of integers may overflow 32 bits."""
        over = features > MOST_FEATURES and graph.kernel not in BLOCK_SIZES
        if over:
            self.done.kept[node.name] = (
                f"its sums of {features:,} products of integers may overflow; those of up to {MOST_FEATURES:,} cannot"
            )
        return over


def _projected_inputs(graph: GraphProto) -> frozenset[str]:
    """The products by W of projected layers, which come before their Scans."""
    producers = producers_of(graph.node)
    layers = [read_layer(node, producers) for node in graph.node if node.op_type == "Scan"]
    return frozenset(port.node.name for layer in layers if layer is not None for port in layer.W)
