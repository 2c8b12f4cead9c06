"""Recovers the nn.LSTM, nn.GRU or nn.RNN from which lstm-onnx wrote a file's recurrent nodes.

A stack of layers is recognised by the names of its nodes, and proven by writing it again: the emitter must give exactly
the nodes of the file.  The same holds for a cell (nn.LSTMCell, nn.GRUCell, nn.RNNCell), a sequence of one step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto
from torch import nn

from ..exporter.emitter import StackOutputs, recurrent_stack
from ..exporter.node_names import FOLDED_INVERSE
from ..exporter.targets import LayerForm
from ..exporter.weights import Array, LayerWeights
from ..onnxgraph.builder import Nodes
from ..onnxgraph.recurrent import INITIAL_C, INITIAL_H, RecurrentLayer, input_of, read_layer
from ..spec import DTYPES, RecurrentSpec, RNNSpec
from .graph import FileGraph, attribute_values, new_layer, torch_array
from .operator_layers import spec_of, state_of_layers
from .program import CellStep


@dataclass(frozen=True)
class Stack:
    """A stack of layers in a graph.

    Attributes:
        spec: the module's sizes.
        state: its parameters by torch's names.
        prefix: the prefix of its weights' names: its path with slashes, and a slash.
        x, h0, c0, lengths: the values that it reads; None for one that is left out.
        outputs: the values that it gives.
        nodes: its nodes.
        folds: the stored product R W_hr of each layer whose projection is folded.
        call_prefix: the prefix of its nodes' names; in a second call it differs from that of the weights.
    """

    spec: RecurrentSpec
    state: Mapping[str, Array]
    prefix: str
    x: str
    h0: str | None
    c0: str | None
    lengths: str | None
    outputs: StackOutputs
    nodes: list[NodeProto]
    call_prefix: str
    folds: tuple[Array, ...] = ()

    @property
    def path(self) -> str:
        """The module's path in the module that was exported."""
        return self.prefix.removesuffix("/").replace("/", ".")


def stacks_of(graph: FileGraph) -> Iterator[Stack]:
    """The stacks in a graph that lstm-onnx wrote."""
    for node in graph.nodes:
        prefix = re.fullmatch(r"(.*)l0/(?:LSTM|GRU|RNN|Scan)", str(node.name), re.DOTALL)
        found = _Reader(graph, prefix[1], node).stack() if prefix else None
        if found is not None:
            yield found


class _Reader:
    """Reads one stack; see `stacks_of`."""

    def __init__(self, graph: FileGraph, prefix: str, first: NodeProto) -> None:
        self.graph, self.prefix, self.op_type = graph, prefix, str(first.op_type)
        self.layers: list[RecurrentLayer] = []
        while (node := graph.named.get(f"{prefix}l{len(self.layers)}/{self.op_type}")) is not None:
            layer = read_layer(node, graph.producers)
            if layer is None:
                break
            self.layers.append(layer)

    def stack(self) -> Stack | None:
        """The stack; None if the nodes differ from those that an export writes."""
        if not self.layers:
            return None
        try:
            return self._stack([self._weights(layer) for layer in self.layers])
        except (
            KeyError,
            IndexError,
            ValueError,
            StopIteration,
        ):  # nodes with such names, but without the expected inputs
            return None

    def _stack(self, weights: list[LayerWeights]) -> Stack | None:
        graph, prefix, first = self.graph, self.prefix, self.layers[0]
        fold = first.W_hr == () and weights[0].W_hr is not None
        spec = self._spec(weights)
        lead = graph.named.get(f"{prefix}input/time_first")
        x = input_of(lead, 0) if lead is not None else self._first_input()
        step = first.directions if first.scan else 1
        only = len(self.layers) * step == 1
        h0, c0 = self._initial("h", only=only), self._initial("c", only=only) if spec.has_cell else None
        lengths = self._lengths()
        outputs = self._outputs(only=only)
        nodes = Nodes()
        weights_prefix = self._weights_prefix()
        recurrent_stack(
            nodes,
            spec,
            weights,
            x,
            h0,
            c0,
            lengths=lengths,
            form=LayerForm(fold=fold, scan=first.scan),
            names=outputs,
            prefix=prefix,
            weights_prefix=weights_prefix,
            batch_axis=self._batch_axis(),
        )
        own = [graph.named.get(str(node.name)) for node in nodes.nodes]
        for node, other in zip(nodes.nodes, own, strict=True):
            if other is None or not _equal(node, other):
                return None
        state = state_of_layers(spec, weights)
        folds = tuple(layer.folded for layer in weights if layer.folded is not None)
        return Stack(spec, state, weights_prefix, x, h0, c0, lengths, outputs, [n for n in own if n], prefix, folds)

    def _spec(self, weights: list[LayerWeights]) -> RecurrentSpec:
        first = self.layers[0]
        dtype = str(weights[0].W.dtype)
        if dtype not in DTYPES:
            raise ValueError(dtype)
        sizes: dict[str, Any] = {
            "input_size": weights[0].W.shape[2],
            "hidden_size": first.hidden_size,
            "num_layers": len(self.layers),
            "bias": weights[0].B is not None,
            "batch_first": f"{self.prefix}input/time_first" in self.graph.named,
            "bidirectional": first.directions == 2,
            "dtype": dtype,
        }
        projected = weights[0].W_hr
        return spec_of(first.node, first.op_type, sizes, proj_size=0 if projected is None else projected.shape[1])

    def _weights(self, layer: RecurrentLayer) -> LayerWeights:
        arrays = self.graph.arrays
        if not layer.scan:
            W, R = arrays[layer.W[0].value], arrays[layer.R[0].value]  # noqa: N806
            B = arrays[layer.B[0].value] if layer.B else None  # noqa: N806
            W_hr = self._projection(layer)  # noqa: N806
            if W_hr is None:
                return LayerWeights(W, R, B, None)
            inverse = np.linalg.pinv(W_hr.astype(np.float64))
            return LayerWeights(W, (R.astype(np.float64) @ inverse).astype(R.dtype), B, W_hr, folded=R)
        count = layer.directions
        W = np.stack([part.T for part in np.split(arrays[layer.W[0].value], count, axis=1)])  # noqa: N806
        R = np.stack([arrays[port.value].T for port in layer.R])  # noqa: N806
        W_hr = np.stack([arrays[port.value].T for port in layer.W_hr]) if layer.W_hr else None  # noqa: N806
        if not layer.B:
            return LayerWeights(W, R, None, W_hr)
        # The file contains the sum of both biases.
        both = arrays[layer.B[0].value].reshape(count, -1)
        return LayerWeights(W, R, np.concatenate([both, np.zeros_like(both)], axis=1), W_hr)

    def _projection(self, layer: RecurrentLayer) -> Array | None:
        """W_hr ``(directions, proj_size, hidden_size)`` of a projection that is folded into R."""
        at = layer.name.rpartition("/")[0]
        after = [self.graph.named.get(f"{at}/{name}") for name in ("project", "project_hn")]
        found = [self.graph.arrays[input_of(node, 1)] for node in after if node is not None]
        if not found:
            return None
        W_hr = found[0].reshape(layer.directions, *found[0].shape[-2:])  # noqa: N806
        return np.ascontiguousarray(np.swapaxes(W_hr, 1, 2))

    def _weights_prefix(self) -> str:
        """The prefix, from the name of a weight: the nodes of a module's second call have other names."""
        layer = self.layers[0]
        return layer.W[0].value.removesuffix("l0/W") if layer.W[0].value.endswith("l0/W") else self.prefix

    def _first_input(self) -> str:
        layer = self.layers[0]
        if not layer.scan:
            return layer.x
        return input_of(self.graph.named[f"{self.prefix}l0/input_gates"], 0)

    def _initial(self, state: str, *, only: bool) -> str | None:
        split = self.graph.named.get(f"{self.prefix}{state}0/Split")
        if split is not None:
            return input_of(split, 0)
        if not only:
            return None
        layer = self.layers[0]
        if layer.scan:
            value = layer.initial(state)[0].value
            return None if value == f"{self.prefix}zeros/{state}0" else value
        value = input_of(layer.node, INITIAL_H if state == "h" else INITIAL_C)
        before = self.graph.producers.get(value)
        if before is not None and before.op_type == "MatMul" and input_of(before, 1).endswith(FOLDED_INVERSE):
            value = input_of(before, 0)
        return value or None

    def _lengths(self) -> str | None:
        layer = self.layers[0]
        if layer.lengths is None:
            return None
        if layer.scan:
            return input_of(self.graph.named[f"{self.prefix}valid/lengths"], 0)
        return layer.lengths.value

    def _outputs(self, *, only: bool) -> StackOutputs:
        graph, prefix, last = self.graph, self.prefix, len(self.layers) - 1
        end = graph.named.get(f"{prefix}l{last}/output")
        output = str(end.output[0]) if end is not None else None
        finals: list[str | None] = []
        for state in "hc":
            joined = graph.named.get(f"{prefix}{state}n/Concat")
            if joined is not None or not only:
                finals.append(str(joined.output[0]) if joined is not None else None)
                continue
            finals.append(self._only_final(state))
        return StackOutputs(output, *finals)

    def _only_final(self, state: str) -> str | None:
        layer = self.layers[0]
        projected = self.graph.named.get(f"{self.prefix}l0/project_hn")
        if state == "h" and projected is not None:
            return str(projected.output[0])
        ports = layer.final(state)
        value = ports[0].value if ports else ""
        unread = layer.scan and value == f"{layer.name}/{state}_forward"  # a Scan gives all its states
        return None if unread else value or None

    def _batch_axis(self) -> str:
        layer = self.layers[0]
        if not layer.scan:
            return "batch"
        body = next(item.g for item in layer.node.attribute if item.name == "body")
        return str(body.input[0].type.tensor_type.shape.dim[1].dim_param)


def _equal(node: NodeProto, other: NodeProto) -> bool:
    if node.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True):
        return True
    # Another tool that has processed the file may have reordered attributes.
    same = (node.op_type, list(node.input), list(node.output)) == (other.op_type, list(other.input), list(other.output))
    return (
        same
        and not any(item.HasField("g") for item in node.attribute)
        and attribute_values(node) == attribute_values(other)
    )


_KINDS: Mapping[str, Any] = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}


@dataclass(frozen=True)
class Cell:
    """A cell in a graph: its module, its call, whose path is "", and its nodes besides the stack's."""

    module: nn.Module
    step: CellStep
    nodes: list[NodeProto]


def cell_of(graph: FileGraph, stack: Stack) -> Cell | None:
    """The cell that a stack of layers stands for: its nodes add an axis for the one step, and remove it again."""
    spec = stack.spec
    if spec.num_layers > 1 or spec.bidirectional or stack.lengths or stack.outputs.output or not stack.path:
        return None
    if spec.state_size != spec.hidden_size:
        return None
    before = [
        _own(graph, stack, graph.producers.get(name or ""), "Unsqueeze") for name in (stack.x, stack.h0, stack.c0)
    ]
    wanted = [stack.x, stack.h0, stack.c0]
    if any((node is None) != (name is None) for node, name in zip(before, wanted, strict=True)):
        return None
    if spec.has_cell and (stack.h0 is None) != (stack.c0 is None):
        return None
    after: list[NodeProto | None] = []
    for name in (stack.outputs.hn, stack.outputs.cn):
        users = graph.users.get(name or "", [])
        node = _own(graph, stack, users[0], "Squeeze") if len(users) == 1 else None
        if (name is not None and node is None) or name in graph.outputs:
            return None
        after.append(node)
    inputs = [input_of(node, 0) if node is not None else "" for node in before]
    outputs = [str(node.output[0]) if node is not None else "" for node in after]
    step = CellStep("", inputs[0], inputs[1], inputs[2], (outputs[0], outputs[1]))
    return Cell(_module(stack), step, [node for node in (*before, *after) if node is not None])


def _own(graph: FileGraph, stack: Stack, node: NodeProto | None, op_type: str) -> NodeProto | None:
    """The node, if it belongs to the cell's code, acts on the first axis, and is used only by the stack."""
    if node is None or node.op_type != op_type or str(node.name).rpartition("/")[0] != stack.path.replace(".", "/"):
        return None
    axes = graph.arrays.get(input_of(node, 1))
    if axes is None or axes.tolist() != [0]:
        return None
    if op_type == "Unsqueeze":
        users = graph.users.get(str(node.output[0]), [])
        if str(node.output[0]) in graph.outputs or not all(any(user is own for own in stack.nodes) for user in users):
            return None
    return node


def _module(stack: Stack) -> nn.Module:
    spec = stack.spec
    keywords: dict[str, Any] = {"nonlinearity": spec.nonlinearity} if isinstance(spec, RNNSpec) else {}
    sizes = spec.input_size, spec.hidden_size, spec.bias
    module = new_layer(_KINDS[spec.op_type], *sizes, dtype=spec.dtype, **keywords)
    module.load_state_dict({name.removesuffix("_l0"): torch_array(array) for name, array in stack.state.items()})
    return module.eval()
