"""Shape inference by onnx, kept from what crashes it: it trusts a model to be well-formed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import onnx
from onnx import ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, inliner

from ..onnxgraph import attributes_of, bodies_of, graphs_of, nodes_of, typed

_LARGE_TENSOR = 2**16
_MOST_CARRIED = 2**22
"""Numbers, which take 50 bytes each."""
_UNTYPED_CRASH = frozenset({"EyeLike", "RegexFullMatch"})
"""Operators that shape inference crashes on where their input has no type."""


def bare(model: ModelProto) -> ModelProto:
    """A copy of what shapes follow from: no metadata, no numbers of large initializers, nothing that crashes onnx.

    A node that shape inference is not safe with is left out, and its outputs have no shapes.
    """
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
    opsets = {item.domain: item.version for item in model.opset_import}
    inner = [body for function in copy.functions for node in nodes_of(function.node) for body in bodies_of(node)]
    for graph in (*graphs_of(copy.graph), *inner, *copy.functions):
        for index in reversed(range(len(graph.node))):
            if _is_unsafe(graph.node[index], opsets):
                del graph.node[index]
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


def crashes(node: NodeProto) -> bool:
    """Whether onnx and ONNX Runtime end the process on such a node: they read behind the end of a list.

    Measured on onnx 1.23 and ONNX Runtime 1.31: every operator was tried with drawn inputs and attributes.
    """
    parts = typed(attributes_of(node), "num_outputs", int)
    return node.op_type == "Split" and 0 < parts < len(node.output)


def crashes_inference(model: ModelProto) -> bool:
    """Whether onnx's shape inference may crash on some node: one without a type, or with a negative size."""
    values = (value for graph in graphs_of(model.graph) for value in (*graph.input, *graph.output, *graph.value_info))
    functions = (node for function in model.functions for node in function.node)
    return any(node.op_type in _UNTYPED_CRASH for node in nodes_of([*model.graph.node, *functions])) or any(
        True for value in values for _ in _negative_dims(value.type)
    )


def _is_unsafe(node: NodeProto, opsets: Mapping[str, int]) -> bool:
    if node.op_type in _UNTYPED_CRASH or crashes(node):
        return True
    schema = _schema(str(node.op_type), str(node.domain), opsets.get(node.domain, 0))
    if schema is None:
        return False  # of which onnx knows nothing to infer
    return not (
        schema.min_input <= len(node.input) <= schema.max_input
        and schema.min_output <= len(node.output) <= schema.max_output
    )


@cache
def _schema(name: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(name, opset, domain)
    except (onnx.defs.SchemaError, UnicodeError, OverflowError, TypeError):
        return None


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
