"""A copy of a file whose named axes have sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from ...onnxgraph import graphs_of
from ...symbolic_dims import size_of


def write_fixed(path: str | os.PathLike[str], target: str | os.PathLike[str], feeds: Mapping[str, np.ndarray]) -> None:
    """Write a copy for inputs of these shapes, in all of its graphs; other names and expressions are removed."""
    model = onnx.load(path)
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in feeds:
            pairs = zip(_dims(value), feeds[value.name].shape, strict=True)
            sizes |= {dim.dim_param: size for dim, size in pairs if dim.HasField("dim_param")}
    for graph in graphs_of(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in _dims(value):
                if not dim.dim_param:
                    continue
                size = size_of(dim.dim_param, sizes)
                dim.Clear()
                if size is not None:
                    dim.dim_value = size
    for value in model.graph.input:  # also axes without a name
        if value.name in feeds:
            for dim, size in zip(_dims(value), feeds[value.name].shape, strict=True):
                dim.dim_value = size
    onnx.save(model, target)


def _dims(value: onnx.ValueInfoProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    return iter(value.type.tensor_type.shape.dim)
