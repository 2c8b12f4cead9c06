"""Shape inference by onnx, on what shapes follow from."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import ModelProto, TensorProto, TensorShapeProto, TypeProto, inliner

from ..onnxgraph import bodies_of, graphs_of, nodes_of

_LARGE_TENSOR = 2**16
_MOST_CARRIED = 2**22
"""Numbers, which take 50 bytes each."""


def bare(model: ModelProto) -> ModelProto:
    """A copy of what shapes follow from: no metadata, no numbers of large initializers, negative sizes as open ones."""
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


def inferred(model: ModelProto, *, data_prop: bool = True) -> ModelProto:
    """`model`, which is bare, with every shape that follows from its inputs.

    Shapes that are computed follow with `data_prop` alone.  It carries along what they are computed from,
    number by number, also numbers that nobody knows; it is left out where that would be much.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    shaped = onnx.shape_inference.infer_shapes(model, data_prop=False)
    if not data_prop or _carried(shaped) > _MOST_CARRIED:
        return shaped
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def has_negative_dims(model: ModelProto) -> bool:
    """Whether a size is negative, as some exporters write open ones, and onnx's shape inference may not survive."""
    values = (value for graph in graphs_of(model.graph) for value in (*graph.input, *graph.output, *graph.value_info))
    return any(True for value in values for _ in _negative_dims(value.type))


def _negative_dims(kind: TypeProto) -> Iterator[TensorShapeProto.Dimension]:
    yield from (dim for dim in kind.tensor_type.shape.dim if dim.HasField("dim_value") and dim.dim_value < 0)


def _carried(model: ModelProto) -> int:
    """How many numbers data propagation may carry: those of every flat value, by its shape or by what is joined."""
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
