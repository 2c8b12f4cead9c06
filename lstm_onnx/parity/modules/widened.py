"""A half-precision file and its module in float32: the same graph and weights, with 8000 times finer rounding.

Half precision rounds at 1e-3, so that a mistake behind a layer that reacts weakly is within its rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...exporter.copies.clone import clone_module
from ...input_spec import InputSpec
from ...metadata import Metadata
from ...onnxgraph.nodes import graphs_of

_DTYPE_ATTRIBUTES = ("to", "dtype", "stash_type")
"""Attributes that name a dtype."""


def widened_graph(model: onnx.ModelProto, folder: str) -> onnx.ModelProto:
    """A copy of `model`, whose external data is in `folder`, with float32 in place of float16."""
    copy = deepcopy(model)
    for graph in graphs_of(copy.graph):
        _widen_values((*graph.input, *graph.output, *graph.value_info))
        for tensor in graph.initializer:
            _widen_tensor(tensor, folder)
        for node in graph.node:
            for attribute in node.attribute:
                _widen_attribute(attribute)
    metadata = Metadata.from_metadata({entry.key: entry.value for entry in copy.metadata_props})
    initial = {name: _widened_array(array) for name, array in metadata.initial.items()}
    entries = replace(metadata, inputs=tuple(map(widened_spec, metadata.inputs)), initial=initial).to_metadata()
    others = {entry.key: entry.value for entry in copy.metadata_props if entry.key not in entries}
    del copy.metadata_props[:]
    helper.set_model_props(copy, {**others, **entries})
    return copy


def widened_module(module: nn.Module) -> nn.Module:
    """A copy of a module in float32, in which a projected LSTM has the sum of its biases as its file has it."""
    copy = clone_module(module, torch.float32)
    for layer in copy.modules():
        if isinstance(layer, nn.LSTM) and layer.proj_size:
            _round_biases(dict(layer.named_parameters(recurse=False)))
    return copy


def _round_biases(parameters: Mapping[str, Tensor]) -> None:
    """The sum of each two biases, rounded to float16, as one of them, and zeros as the other: a Scan has one bias."""
    with torch.no_grad():
        for name, bias in parameters.items():
            other = parameters.get(name.replace("bias_ih", "bias_hh"))
            if name.startswith("bias_ih") and other is not None:
                bias.copy_((bias + other).half())
                other.zero_()


def widened_inputs(inputs: Any) -> Any:
    """Inputs, nested in any way, with float32 in place of float16."""

    def of(leaf: Any) -> Any:
        return leaf.float() if isinstance(leaf, Tensor) and leaf.dtype == torch.float16 else leaf

    return tree_map(of, inputs)


def widened_spec(spec: InputSpec) -> InputSpec:
    """The spec of an input with float32 in place of float16."""
    return replace(spec, dtype="float32") if spec.dtype == "float16" else spec


def _widen_values(values: Iterable[ValueInfoProto]) -> None:
    for value in values:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT


def _widen_attribute(attribute: AttributeProto) -> None:
    if attribute.type == AttributeProto.TENSOR:
        _widen_tensor(attribute.t, "")
    elif attribute.name in _DTYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
        attribute.i = TensorProto.FLOAT


def _widen_tensor(tensor: TensorProto, folder: str) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(_widened_array(numpy_helper.to_array(tensor, folder)), tensor.name))


def _widened_array(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array
