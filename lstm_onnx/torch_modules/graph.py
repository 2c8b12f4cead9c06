"""Reads an ONNX file for a conversion: its nodes, its weights as arrays, and the node that makes each value."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.external_data_helper import uses_external_data
from torch import nn

from ..errors import ModelError
from ..metadata import PRODUCER, Metadata
from ..onnxgraph import dtype_name, is_default, load_inlined, node_name, nodes_of, stored_tensors, text
from ..onnxgraph.load import metadata_of, opset_of, read_weights
from ..onnxgraph.nodes import constant_of, producers_of
from ..onnxgraph.recurrent import GATES, input_of, is_onnx_operator
from .program import OPERATORS
from .values import tensor

_BODIES = ("Scan", "Loop", "If")
_INT8 = ("DynamicQuantizeLSTM", "DynamicQuantizeLinear", "MatMulInteger", "MatMulNBits", "DequantizeLinear")
_STORED = "(bool|float(16|32|64)|u?int(8|16|32|64))"
"""The dtypes of stored values that numpy and torch both have."""
_LEAST_OPSET = 7
_LEAST_OPSET_OF_SCAN = 9


@dataclass(frozen=True)
class FileGraph:
    """A graph, or the body of a node in one.

    Attributes:
        nodes: without Constants.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        arrays: the stored weights and constants by name, including those of outer graphs.
        anonymous: the constants that are not initializers, or whose names lstm-onnx made up.
        opset: of ONNX's own operators.
        own: whether lstm-onnx wrote the file, so that nodes are named after modules.
    """

    nodes: Sequence[NodeProto]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]
    anonymous: frozenset[str]
    opset: int
    own: bool

    @cached_property
    def named(self) -> dict[str, NodeProto]:
        """The nodes by name."""
        return {str(node.name): node for node in self.nodes if node.name}

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node of each value."""
        return producers_of(self.nodes)

    @cached_property
    def users(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each value, including those in bodies."""
        found: dict[str, list[NodeProto]] = {}
        for node in nodes_of(self.nodes):
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def body(self, graph: GraphProto) -> FileGraph:
        """The body of one of its nodes."""
        # Values of the outer graph may have the same names as its own.
        given = {item.name for item in graph.input}
        outer = {name: array for name, array in self.arrays.items() if name not in given}
        stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        return _read_graph(graph, {**outer, **stored}, self.anonymous, self.opset, own=self.own)


@dataclass(frozen=True)
class ConvertedFile:
    """A file: its graph, its metadata, and the proto."""

    path: str
    model: ModelProto
    graph: FileGraph
    metadata: Metadata
    name: str = field(default="")


def read_file(path: str | os.PathLike[str]) -> ConvertedFile:
    """A file, with its functions inlined and its weights.

    Raises:
        FileError: it cannot be read.
        ModelError: it is not an ONNX model, is damaged, or contains something that PyTorch cannot express.
    """
    model = load_inlined(path)
    metadata = metadata_of(model, path)
    opset = opset_of(model)
    problems = list(dict.fromkeys(_problems(model, opset)))
    if problems:
        advice = (
            "convert the float32 file from which this int8 file was made"
            if any(node.op_type in _INT8 for node in nodes_of(model.graph.node))
            else None
        )
        raise ModelError(f"cannot become a PyTorch module: {'; '.join(problems)}", path=path, hint=advice)
    arrays = read_weights(model, path)
    own = model.producer_name == PRODUCER
    graph = _read_graph(model.graph, arrays, frozenset(), opset, own=own)
    return ConvertedFile(os.fspath(path), model, graph, metadata, model.graph.name)


def _problems(model: ModelProto, opset: int) -> list[str]:
    if opset < _LEAST_OPSET:
        return [f"its operator set is {opset or 'unknown'}, and the oldest that can be converted is {_LEAST_OPSET}"]
    counts: dict[str, list[str]] = {}
    inside = [(name, tensor) for name, tensor in stored_tensors(model) if not uses_external_data(tensor)]
    flags = {name: tensor for name, tensor in inside if tensor.data_type == TensorProto.BOOL}
    off = {name for name, tensor in flags.items() if not numpy_helper.to_array(tensor).any()} | {""}
    for node in nodes_of(model.graph.node):
        known = node.op_type in OPERATORS or node.op_type in (*_BODIES, *GATES, "Constant")
        if not (known and is_default(node.domain)):
            operator = node.op_type if is_default(node.domain) else f"{node.domain}.{node.op_type}"
            counts.setdefault(operator, []).append(node_name(node))
        elif form := _unsupported_form(node, opset, off):
            counts.setdefault(f"{node.op_type} with {form}", []).append(node_name(node))
    stored = [
        f"the stored value {name} is {dtype_name(tensor.data_type)}, which cannot be converted"
        for name, tensor in stored_tensors(model)
        if not re.fullmatch(_STORED, dtype_name(tensor.data_type))
    ]
    return stored + [
        f"the operator {operator} ({names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}) has no translation"
        for operator, names in sorted(counts.items())
    ]


def _unsupported_form(node: NodeProto, opset: int, off: Set[str]) -> str:
    """The feature of a known operator that has no translation; "" if there is none.  `off` are flags that are false."""
    op_type, values = str(node.op_type), attribute_values(node)
    auto_pad, reduction = values.get("auto_pad", "NOTSET"), values.get("reduction", "none")
    pads = values.get("pads", [])
    uneven = pads[: len(pads) // 2] != pads[len(pads) // 2 :]
    forms = {
        f"auto_pad = {auto_pad}": auto_pad not in ("NOTSET", "VALID"),
        "output_shape": "output_shape" in values,
        "to = string": op_type == "Cast" and values.get("to") == TensorProto.STRING,
        "a batch, as in opset 8": op_type == "Scan" and opset < _LEAST_OPSET_OF_SCAN,
        "training_mode = 1": bool(values.get("training_mode"))
        or (op_type == "BatchNormalization" and node.output[1:])
        or (op_type == "Dropout" and input_of(node, 2) not in off),
        f"reduction = {reduction}": op_type == "ScatterND" and reduction not in ("none", "add"),
        "spatial = 0": op_type == "BatchNormalization" and values.get("spatial", 1) == 0,
        "the output Indices": op_type == "MaxPool" and any(node.output[1:]),
        "the output Mean or InvStdDev": op_type == "LayerNormalization" and any(node.output[1:]),
        "dilations": op_type == "AveragePool" and any(size != 1 for size in values.get("dilations", [])),
        "different padding at the start and at the end": uneven
        and (
            (op_type == "AveragePool" and not values.get("count_include_pad"))
            or (op_type in ("AveragePool", "MaxPool") and bool(values.get("ceil_mode")))
        ),
    }
    return next((form for form, present in forms.items() if present), "")


def _read_graph(
    graph: GraphProto, stored: Mapping[str, np.ndarray], anonymous: frozenset[str], opset: int, *, own: bool
) -> FileGraph:
    arrays = dict(stored)
    unnamed = set(anonymous)
    if own:
        unnamed |= {item.name for item in graph.initializer if "/" in item.name}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and is_default(node.domain):
            arrays[node.output[0]] = _constant(node)
            unnamed.add(node.output[0])
        elif _is_cast_of_weight(node, arrays):
            kind = torch_array(arrays[node.input[0]])
            arrays[node.output[0]] = OPERATORS["Cast"]([kind], attribute_values(node)).numpy()
        else:
            nodes.append(node)
    inputs = tuple(value.name for value in graph.input if value.name not in arrays)
    outputs = tuple(value.name for value in graph.output)
    return FileGraph(nodes, inputs, outputs, arrays, frozenset(unnamed), opset, own)


def _is_cast_of_weight(node: NodeProto, arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether it is the Cast of a weight that is stored as float16."""
    return node.op_type == "Cast" and node.input[0] in arrays and arrays[node.input[0]].dtype == np.float16


def _constant(node: NodeProto) -> np.ndarray:
    stored = constant_of(node)
    if stored is None:
        raise ModelError(f"the Constant {node.output[0]} holds {node.attribute[0].name}, which PyTorch cannot express")
    return numpy_helper.to_array(stored)


def attribute_values(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python values and tensors, without bodies."""
    found: dict[str, Any] = {}
    for item in node.attribute:
        if item.type in _ATTRIBUTES:
            field_name, read = _ATTRIBUTES[item.type]
            found[item.name] = read(getattr(item, field_name))
    return found


def _decimal(value: float) -> float:
    """The shortest number that is equal in float32, in which attributes are stored: 1e-05."""
    return float(str(np.float32(value)))


def new_layer(kind: Any, *arguments: Any, dtype: np.dtype[Any] | str, **keywords: Any) -> nn.Module:
    """A new module; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = kind(*arguments, dtype=getattr(torch, str(dtype)), **keywords)
    return module


def torch_array(array: np.ndarray) -> torch.Tensor:
    """A copy of an array as a tensor."""
    return torch.from_numpy(np.array(array, order="C"))


_ATTRIBUTES: Mapping[int, tuple[str, Callable[[Any], Any]]] = {
    AttributeProto.TENSOR: ("t", lambda value: torch_array(numpy_helper.to_array(value))),
    AttributeProto.STRING: ("s", text),
    AttributeProto.STRINGS: ("strings", lambda values: list(map(text, values))),
    AttributeProto.INT: ("i", int),
    AttributeProto.INTS: ("ints", list),
    AttributeProto.FLOAT: ("f", _decimal),
    AttributeProto.FLOATS: ("floats", lambda values: list(map(_decimal, values))),
}
"""By attribute type: the field that holds the value, and how to read it."""


_MOST_NODES = 1000


def with_folded_weights(graph: FileGraph) -> FileGraph:
    """The graph with constant W, R, B and peepholes of its recurrent operators as stored values."""
    arrays = dict(graph.arrays)
    done: set[int] = set()
    for node in graph.nodes:
        if is_onnx_operator(node):
            for index in (1, 2, 3, 7):
                _fold(graph, input_of(node, index), arrays, done)
    if not done:
        return graph
    others = [node for node in graph.nodes if id(node) not in done]
    needed = {name for node in others for name in node.input} | set(graph.outputs)
    kept = [node for node in graph.nodes if id(node) not in done or needed & set(node.output) - arrays.keys()]
    return replace(graph, nodes=kept, arrays=arrays, anonymous=graph.anonymous | (arrays.keys() - graph.arrays.keys()))


def _fold(graph: FileGraph, name: str, arrays: dict[str, np.ndarray], done: set[int]) -> None:
    for node in _constant_nodes(graph, name, arrays):
        attributes = {**attribute_values(node), "opset": graph.opset, "outputs": len(node.output)}
        inputs = [torch_array(arrays[value]) if value else None for value in node.input]
        result = OPERATORS[str(node.op_type)](list(inputs), attributes)
        results = result if isinstance(result, tuple) else (result,)
        for output, value in zip(node.output, results, strict=False):
            arrays[output] = tensor(value).numpy()
        done.add(id(node))


def _constant_nodes(graph: FileGraph, name: str, arrays: dict[str, np.ndarray]) -> list[NodeProto]:
    """The nodes that compute a constant, in order; none if it is stored or is not constant."""
    found: dict[int, NodeProto] = {}
    todo = [name] if name and name not in arrays else []
    while todo:
        node = graph.producers.get(todo.pop())
        if node is None or node.op_type not in OPERATORS or len(found) > _MOST_NODES:
            return []
        found[id(node)] = node
        todo += [value for value in node.input if value and value not in arrays]
    return [node for node in graph.nodes if id(node) in found]
