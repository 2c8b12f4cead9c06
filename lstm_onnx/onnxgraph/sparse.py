"""Replaces sparse tensors of a model by dense ones, so that the rest of the package need not handle them."""

from __future__ import annotations

from math import prod

import numpy as np
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, numpy_helper

from .nodes import graphs_of, nodes_of

_MOST_BYTES = 2**31
"""The most bytes of a dense tensor: a file of 100 bytes can ask for 2^60."""


def make_dense(model: ModelProto) -> None:
    """Replace the sparse initializers and the sparse Constants of a model, including those in bodies, in place.

    Raises:
        ValueError, TypeError, LookupError: a tensor is damaged or too large.
    """
    for graph in graphs_of(model.graph):
        graph.initializer.extend(_dense(sparse) for sparse in graph.sparse_initializer)
        del graph.sparse_initializer[:]
    for node in nodes_of(model.graph.node):
        if node.op_type != "Constant":
            continue
        for item in node.attribute:
            if item.type == AttributeProto.SPARSE_TENSOR:
                item.t.CopyFrom(_dense(item.sparse_tensor))
                item.ClearField("sparse_tensor")
                item.name, item.type = "value", AttributeProto.TENSOR


def _dense(sparse: SparseTensorProto) -> TensorProto:
    """The dense tensor; a sparse one's indices are flat, or a row for each number with an index along each axis."""
    name, dims = str(sparse.values.name), tuple(sparse.dims)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if prod(dims) * values.itemsize > _MOST_BYTES:
        raise ValueError(f"the sparse tensor {name} of shape {dims} is over {_MOST_BYTES >> 30} GiB")
    if indices.ndim > 1:
        indices = np.ravel_multi_index(tuple(indices.T), dims)
    array = np.zeros(prod(dims), values.dtype)
    array[indices] = values
    return numpy_helper.from_array(array.reshape(dims), name)
