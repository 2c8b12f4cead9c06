"""Recognises the layers in a graph other than recurrent ones: linear, embeddings, norms and convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from onnx import NodeProto
from torch import nn

from ..onnxgraph.recurrent import input_of
from .graph import FileGraph, attribute_values, new_layer, torch_array
from .products import padding_of
from .program import LINEAR, ModuleStep, OperatorStep

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """nn.BatchNorm1d, 2d or 3d: a file does not say which, and they compute the same."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accept any number of axes."""


@dataclass(frozen=True)
class Layer:
    """A layer recognised from nodes of a graph.

    Attributes:
        path: the wanted path of its module; "" if the nodes call an operator on parameters of other modules.
        module: the module, with its weights.
        step: its call.
        nodes: the nodes that it replaces.
        weights: the stored weight of each parameter that other modules may share.
        stored: what the step reads besides the file's stored values.
    """

    path: str
    module: nn.Module | None
    step: ModuleStep | OperatorStep
    nodes: tuple[NodeProto, ...]
    weights: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, np.ndarray] = field(default_factory=dict)


def layer_of(graph: FileGraph, node: NodeProto) -> Layer | None:
    """The layer that begins with a node; None if the node stays an operator."""
    readers = {
        "MatMul": _linear,
        "Gemm": _gemm,
        "Gather": _embedding,
        "LayerNormalization": _layer_norm,
        "Conv": _conv,
        "BatchNormalization": _batch_norm,
    }
    read = readers.get(str(node.op_type))
    return read(graph, node) if read is not None else None


def scope_of(graph: FileGraph, node: NodeProto) -> str:
    """The path of the module whose code made a node; "" where the file does not say."""
    return str(node.name).rpartition("/")[0].replace("/", ".") if graph.own else ""


def _owner(name: str, *endings: str) -> str | None:
    """The path of the module to which a parameter belongs: ``encoder.out`` for ``encoder.out.weight``."""
    owner, _, last = name.rpartition(".")
    return owner if owner and last in endings else None


def _array(graph: FileGraph, node: NodeProto, index: int, axes: int) -> np.ndarray | None:
    """A stored floating-point tensor with `axes` axes that a node reads."""
    array = graph.arrays.get(input_of(node, index))
    return array if array is not None and array.ndim == axes and array.dtype.kind == "f" else None


def _called(
    path: str, module: nn.Module, node: NodeProto, nodes: tuple[NodeProto, ...], weights: Mapping[str, str]
) -> Layer:
    step = ModuleStep("", input_of(node, 0), str(nodes[-1].output[0]))
    return Layer(path, module.eval(), step, nodes, weights)


def _place(graph: FileGraph, node: NodeProto, name: str) -> str | None:
    """The path of the module whose node reads the weight of this name; None for code that calls a function.

    Equal weights are stored once, under the first one's name; the node's scope distinguishes them.
    """
    owner = _owner(name, "weight")
    return (scope_of(graph, node) or None) if graph.own and owner is not None else owner


def _with(module: nn.Module, arrays: Mapping[str, np.ndarray | None]) -> nn.Module:
    """A module with these parameters and buffers."""
    state = {name: torch_array(array) for name, array in arrays.items() if array is not None}
    module.load_state_dict(state, strict=False)
    return module


def _linear(graph: FileGraph, node: NodeProto) -> Layer | None:
    """A MatMul with a stored matrix, and the Add of its bias."""
    weight = _array(graph, node, 1, 2)
    if weight is None or input_of(node, 0) in graph.arrays:
        return None
    if graph.own and input_of(node, 1) not in graph.anonymous:
        return None  # a plain parameter: the weight of an nn.Linear would be transposed
    after, bias_name = _bias_of(graph, node, weight)
    bias = graph.arrays[bias_name] if after is not None else None
    nodes = (node,) if after is None else (node, after)
    scope, output = scope_of(graph, node), str(nodes[-1].output[0])
    path = scope or ("" if graph.own else _owner(bias_name, "bias") or _plain(str(node.name)))
    if not path or bias_name.rpartition(".")[0].startswith(f"{path}.") or _owner(bias_name, "in_proj_bias") == path:
        # Code that calls functional.linear.
        # Nodes of other tools may share a name, or have none; their matrices have unique names.
        fallback = f"{node.name if graph.own else input_of(node, 1)}/transposed"
        named = bias_name.replace("bias", "weight")
        taken = named == bias_name or (named in graph.arrays and not graph.own)
        stored = _transposed(graph, weight) or (fallback if taken else named)
        inputs = (input_of(node, 0), stored, *([bias_name] if bias_name else []))
        return Layer("", None, OperatorStep(LINEAR, inputs, (output,), {}, scope), nodes, stored={stored: weight.T})
    module = new_layer(nn.Linear, *weight.shape, bias=bias is not None, dtype=weight.dtype)
    _with(module, {"weight": weight.T, "bias": bias})
    tied = _transposed(graph, weight) if graph.own else None
    return _called(path, module, node, nodes, {"weight": tied or f"{path}.weight"})


def _bias_of(graph: FileGraph, node: NodeProto, weight: np.ndarray) -> tuple[NodeProto | None, str]:
    """The Add of a bias after a product, and the bias; None and "" where there is none."""
    value = str(node.output[0])
    users = graph.users.get(value, [])
    if len(users) != 1 or users[0].op_type != "Add" or value in graph.outputs:
        return None, ""
    add = users[0]
    index = 1 if input_of(add, 0) == value else 0
    bias = _array(graph, add, index, 1)
    if bias is None or bias.shape != weight.shape[1:] or bias.dtype != weight.dtype:
        return None, ""
    if not any(add is item for item in graph.nodes) or scope_of(graph, add) != scope_of(graph, node):
        return None, ""
    return add, input_of(add, index)


def _transposed(graph: FileGraph, weight: np.ndarray) -> str | None:
    """The parameter whose transpose a matrix is, such as a weight that is also used elsewhere."""
    return next(
        (
            name
            for name, array in graph.arrays.items()
            if name not in graph.anonymous and array.shape == weight.shape[::-1] and np.array_equal(array.T, weight)
        ),
        None,
    )


def _gemm(graph: FileGraph, node: NodeProto) -> Layer | None:
    """A Gemm with a stored matrix: nn.Linear for an input of two axes."""
    attributes = attribute_values(node)
    weight, bias = _array(graph, node, 1, 2), _array(graph, node, 2, 1)
    scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA")
    if weight is None or scaled or (input_of(node, 2) and bias is None) or input_of(node, 0) in graph.arrays:
        return None
    weight = weight if attributes.get("transB") else weight.T
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    owner, name = _owner(input_of(node, 1), "weight"), input_of(node, 1)
    path = scope_of(graph, node) if graph.own else owner or _plain(str(node.name))
    if not path or (owner or "").startswith(f"{path}.") or (graph.own and owner is None):
        return None  # code that calls functional.linear
    module = new_layer(nn.Linear, *weight.shape[::-1], bias=bias is not None, dtype=weight.dtype)
    return _called(path, _with(module, {"weight": weight, "bias": bias}), node, (node,), {"weight": name})


def _embedding(graph: FileGraph, node: NodeProto) -> Layer | None:
    """Rows of a stored table."""
    weight = _array(graph, node, 0, 2)
    path = _place(graph, node, input_of(node, 0))
    if weight is None or path is None or attribute_values(node).get("axis", 0) or input_of(node, 1) in graph.arrays:
        return None
    module = _with(new_layer(nn.Embedding, *weight.shape, dtype=weight.dtype), {"weight": weight})
    step = ModuleStep("", input_of(node, 1), str(node.output[0]))
    return Layer(path, module.eval(), step, (node,), {"weight": input_of(node, 0)})


def _layer_norm(graph: FileGraph, node: NodeProto) -> Layer | None:
    """A LayerNormalization with stored scale and bias."""
    attributes = attribute_values(node)
    weight, bias = (graph.arrays.get(input_of(node, index)) for index in (1, 2))
    path = _place(graph, node, input_of(node, 1))
    if weight is None or path is None or weight.ndim != -attributes.get("axis", -1):
        return None
    if input_of(node, 2) and (bias is None or bias.shape != weight.shape):
        return None
    eps = attributes.get("epsilon", 1e-5)
    module = new_layer(nn.LayerNorm, weight.shape, eps, bias=bias is not None, dtype=weight.dtype)
    names = {"weight": input_of(node, 1), **({"bias": input_of(node, 2)} if bias is not None else {})}
    return _called(path, _with(module, {"weight": weight, "bias": bias}), node, (node,), names)


def _conv(graph: FileGraph, node: NodeProto) -> Layer | None:
    """A convolution with stored weights and the same padding on both sides."""
    attributes = attribute_values(node)
    weight = graph.arrays.get(input_of(node, 1))
    bias = graph.arrays.get(input_of(node, 2))
    path = _owner(input_of(node, 1), "weight")
    if weight is None or path is None or (input_of(node, 2) and bias is None) or not 3 <= weight.ndim <= 5:
        return None
    axes = weight.ndim - 2
    before, after = padding_of(attributes, axes)
    if before != after:
        return None
    group = attributes.get("group", 1)
    module = new_layer(
        _CONVOLUTIONS[axes - 1],
        weight.shape[1] * group,
        weight.shape[0],
        weight.shape[2:],
        dtype=weight.dtype,
        stride=tuple(attributes.get("strides") or [1] * axes),
        padding=tuple(before),
        dilation=tuple(attributes.get("dilations") or [1] * axes),
        groups=group,
        bias=bias is not None,
    )
    return _called(path, _with(module, {"weight": weight, "bias": bias}), node, (node,), {"weight": input_of(node, 1)})


def _batch_norm(graph: FileGraph, node: NodeProto) -> Layer | None:
    """A batch norm with its stored statistics."""
    weight, bias, mean, variance = (graph.arrays.get(input_of(node, index)) for index in (1, 2, 3, 4))
    path = _owner(input_of(node, 3), "running_mean") or _owner(input_of(node, 1), "weight")
    if weight is None or bias is None or mean is None or variance is None:
        return None
    path = path or _plain(str(node.name)) or "batch_norm"
    values = attribute_values(node)
    eps, momentum = values.get("epsilon", 1e-5), 1 - values.get("momentum", 0.9)
    module = new_layer(BatchNorm, len(weight), eps, momentum, dtype=weight.dtype)
    arrays = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
    return _called(path, _with(module, arrays), node, (node,), {})


def _plain(name: str) -> str:
    """Another tool's node name as a path: ``/decoder/fc/MatMul`` as ``decoder.fc``."""
    path = name.strip("/").rpartition("/")[0]
    return path.replace("/", ".") or name.strip("/")
