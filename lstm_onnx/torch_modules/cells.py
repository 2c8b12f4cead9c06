"""The nn.LSTMCell, nn.GRUCell or nn.RNNCell that an export wrote as a sequence of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import NodeProto
from torch import nn

from ..onnxgraph.recurrent import input_of
from ..spec import RNNSpec
from .graph import FileGraph, new_layer, torch_array
from .program import CellStep
from .stacks import Stack

_KINDS: Mapping[str, Any] = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}


@dataclass(frozen=True)
class Cell:
    """A cell in a graph: its module, its call, whose path is "", and the nodes beside the stack's."""

    module: nn.Module
    step: CellStep
    nodes: list[NodeProto]


def cell_of(graph: FileGraph, stack: Stack) -> Cell | None:
    """The cell that a stack of layers is, whose nodes make an axis for the one step, and take it away again."""
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
    """The node, if it is of the cell's code, acts on the first axis, and serves the stack alone."""
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
