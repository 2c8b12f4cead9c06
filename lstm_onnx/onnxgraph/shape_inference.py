"""Infers shapes with onnx, on a copy without weights, and within limits on memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, TensorShapeProto, TypeProto, helper, inliner, numpy_helper

from ..symbolic_dims import is_expression, names_in
from .builder import unique_name
from .nodes import bodies_of, graphs_of, inputs_of, nodes_of
from .tensors import axis_name

_LARGE_TENSOR = 2**16
_SMALL = 64
"""The most elements of an array that may be a shape, axes or a count."""
_MOST_CARRIED = 2**22
"""The most elements that data propagation may carry; each takes 50 bytes."""


def without_weights(model: ModelProto) -> ModelProto:
    """A copy without metadata and without the contents of large initializers; negative sizes become dynamic axes."""
    copy = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    copy.graph.name = model.graph.name
    for field in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(copy.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _LARGE_TENSOR:
            tensor = TensorProto(
                name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, data_location=TensorProto.EXTERNAL
            )
        copy.graph.initializer.append(tensor)
    inner = [body for function in copy.functions for node in nodes_of(function.node) for body in bodies_of(node)]
    for graph in (*graphs_of(copy.graph), *inner):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in _negative_dims(value.type):
                dim.Clear()
    return copy


def sizes_alone(arrays: Mapping[str, np.ndarray]) -> Iterator[TensorProto]:
    """The initializers that shape inference needs: small ones, such as shapes, axes and counts."""
    for name, array in arrays.items():
        if array.size <= _SMALL:
            yield numpy_helper.from_array(array, name)
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            yield TensorProto(name=name, dims=array.shape, data_type=kind)


def with_axis_names(model: ModelProto) -> ModelProto | None:
    """Name, in place, the axes of a model's inputs with neither size nor name; return None if there are none."""
    unnamed = [
        (value.name, axis, dim)
        for value in inputs_of(model.graph)
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        if not dim.dim_param and not dim.HasField("dim_value")
    ]
    for name, axis, dim in unnamed:
        dim.dim_param = axis_name(name, axis)
    return model if unnamed else None


def with_identifiers(model: ModelProto) -> ModelProto:
    """Rename, in place, axes whose names are neither identifiers nor expressions of axes, such as ``axis.0``."""
    dims = [
        dim
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    ]
    taken = {name for dim in dims for name in names_in(dim.dim_param)}
    given: dict[str, str] = {}
    for dim in dims:
        name = str(dim.dim_param)
        if not name.isidentifier() and not is_expression(name):
            if name not in given:
                given[name] = unique_name(re.sub(r"\W", "_", f"axis_{name}"), taken)
            dim.dim_param = given[name]
    return model


def with_shapes(model: ModelProto, *, data_prop: bool = True) -> ModelProto:
    """A copy with its functions inlined and every shape that follows from its inputs.

    Args:
        model: as `without_weights` returns it.
        data_prop: infer shapes that the graph computes, too.  onnx propagates the values they are computed from element
            by element, known or not; this is skipped if there would be too many elements.

    Raises:
        ONNX_ERRORS (see `load`): onnx refuses the model.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=False)
    if not data_prop or _carried(shaped) > _MOST_CARRIED:
        return shaped
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def has_negative_dims(model: ModelProto) -> bool:
    """Whether a size is negative, as some exporters write dynamic axes: onnx's shape inference may crash on it."""
    values = (value for graph in graphs_of(model.graph) for value in (*graph.input, *graph.output, *graph.value_info))
    return any(True for value in values for _ in _negative_dims(value.type))


def _negative_dims(kind: TypeProto) -> Iterator[TensorShapeProto.Dimension]:
    yield from (dim for dim in kind.tensor_type.shape.dim if dim.HasField("dim_value") and dim.dim_value < 0)


def _carried(model: ModelProto) -> int:
    """The number of elements that data propagation may carry: those of all 1-D values, by their shape or by Concat."""
    total = 0
    for graph in graphs_of(model.graph):
        sizes = {tensor.name: max(tensor.dims, default=1) for tensor in graph.initializer}
        for value in (*graph.value_info, *graph.output, *graph.input):
            dims = value.type.tensor_type.shape.dim
            sizes[value.name] = max(dims[0].dim_value, 1) if len(dims) == 1 else 1
        for node in graph.node:
            joined = sum(sizes.get(name, 1) for name in node.input) if node.op_type == "Concat" else 1
            sizes |= {name: max(joined, sizes.get(name, 1)) for name in node.output}
            total += sum(sizes[name] for name in (*node.input, *node.output) if name in sizes)
    return total
