"""LO106, LO112: files that ask for huge tensors or endless loops, and files that crash the process.

LO106 is decided by shapes at the smallest sizes; nothing in the file is run.  Shape inference itself can take too much
time or memory: it computes the numbers in shapes, and inlines functions that call functions.  So the cheap tests come
first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper

from ...onnxgraph import (
    MOST_NODES,
    ONNX_ERRORS,
    Scope,
    Shape,
    attributes_of,
    inlined_size,
    shape_of,
    stored_tensors,
    typed,
)
from ...onnxgraph.recurrent import input_of
from ...onnxgraph.shape_inference import with_shapes, without_weights
from ..context import CheckContext
from ..finding import Finding
from ..rule import rule

_LARGEST_VALUE = 2**28
"""Bytes of a value at batch 1 and time 1; no model's activations need more."""
_MOST_GROWN = 16
"""Or this many times the bytes of weights and inputs: weights are transposed, cast to a wider type, multiplied."""
_MOST_ITERATIONS = 10**6
_MIB = 2**20

RESOURCE_BOMB = rule(
    "LO106",
    "resource-bomb",
    "error",
    summary="constants in the file ask for huge tensors or for endless loops",
    why="A file of 68 bytes with one ConstantOfShape takes a GiB when it is opened, and a Loop whose condition never "
    "changes runs for ever. Such a file is not opened. It is recognized by shapes and constants alone, so a value "
    "that grows with each iteration of a Loop is not foreseen.",
    fix="do not run a file from a source that you do not trust; if the size is intended, --ignore LO106",
)
CRASHING_NODE = rule(
    "LO112",
    "crashing-node",
    "error",
    summary="opening the file crashes the process, or never finishes",
    why="onnx and ONNX Runtime trust a node to be well-formed. One that is not can make them read past the end of a "
    "list, fail an assertion, loop for ever or ask for all memory, and none of that raises an exception. So the file "
    "is read, checked, opened and run in a separate process, with limits on time and memory; the report says what "
    "that process was doing when it ended, and what the other rules had found by then. This rule cannot be ignored: "
    "any other process that opens the file may end in the same way.",
    fix="open such a file only in a process that may crash; the stage in the message says where to look for the node; "
    "if the file is merely slow, raise --time-limit",
)


def resource_bomb(file: str, model: ModelProto) -> list[Finding]:
    """Everything that is too large or takes too long for any input; empty if shapes cannot be inferred."""
    count = inlined_size(model)
    if count > MOST_NODES:
        message = f"its functions call each other: {_count_text(count)} nodes when they are inlined"
        return [RESOURCE_BOMB.violated("", message)]
    found = list(_declared(model))
    smallest = _smallest(model)
    input_bytes = sum(_type_bytes(value.type, shape_of(value.type)) for value in smallest.graph.input)
    limit = max(_LARGEST_VALUE, _MOST_GROWN * (input_bytes + _stored_bytes(file, model)))
    for data_prop in (False, True):
        if not found:
            try:
                context = CheckContext(file, model, with_shapes(smallest, data_prop=data_prop))
            except ONNX_ERRORS:
                return found  # dynamic-axes reports it
            found = [*_endless_loops(context), *islice(_large_values(context, limit), 1)]
    return found


def _count_text(count: int) -> str:
    return str(count) if count < 10**12 else f"2^{count.bit_length() - 1}"


def _size_text(size: int) -> str:
    return f"{size // _MIB} MiB" if size < 2**60 else f"2^{size.bit_length() - 1} bytes"


def _declared(model: ModelProto) -> Iterator[Finding]:
    """Tensors whose declared size is much more than they store."""
    for name, tensor in stored_tensors(model):
        inside = tensor.data_location != TensorProto.EXTERNAL
        size = prod(tensor.dims) * _item_bytes(tensor.data_type)
        if inside and size > _LARGEST_VALUE and tensor.ByteSize() < size // _MOST_GROWN:
            message = f"is declared as {_size_text(size)} but stored in {tensor.ByteSize()} bytes"
            yield RESOURCE_BOMB.violated(name, message)


def _stored_bytes(file: str, model: ModelProto) -> int:
    """Bytes of the file and of its external data."""
    places = {
        entry.value
        for _, tensor in stored_tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    paths = [Path(file), *(Path(file).resolve().parent / str(place) for place in places)]
    return sum(os.path.getsize(path) for path in paths if "\0" not in str(path) and path.is_file())  # noqa: PTH202


def _item_bytes(elem_type: int) -> int:
    try:
        return int(helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
    except ONNX_ERRORS:
        return 1


def _smallest(model: ModelProto) -> ModelProto:
    """The model with dynamic axes set to 1, so that sizes computed from them are known."""
    small = without_weights(model)
    for value in small.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    for field in ("value_info", "output"):
        for value in getattr(small.graph, field):
            value.type.tensor_type.ClearField("shape")
    return small


def _large_values(context: CheckContext, limit: int) -> Iterator[Finding]:
    for scope, node in context.nodes:
        size = max((_bytes(scope, output) for output in node.output if output), default=0)
        if node.op_type in ("RandomNormal", "RandomUniform"):
            size = max(size, 4 * prod(_sizes(typed(attributes_of(node), "shape", list))))
        if size > limit:
            yield RESOURCE_BOMB.violated(node, f"{node.op_type} makes {_size_text(size)} for any input")


def _bytes(scope: Scope, output: str) -> int:
    """The bytes of a value; an unknown axis counts as 1."""
    home = scope.home(output)
    kind = home.types.get(output) if home is not None else None
    return _type_bytes(kind, scope.shape(output)) if kind is not None else 0


def _type_bytes(kind: TypeProto, shape: Shape | None) -> int:
    return _item_bytes(kind.tensor_type.elem_type) * prod(_sizes(shape or ()))


def _sizes(shape: Sequence[object]) -> list[int]:
    return [dim for dim in shape if isinstance(dim, int) and dim > 0]


def _endless_loops(context: CheckContext) -> Iterator[Finding]:
    """Loops with a huge trip count and a condition that cannot change."""
    for scope, node in context.nodes:
        if node.op_type == "Loop":
            count = _iterations(context, scope, node) or 2**63 - 1
            around = scope
            while around.caller is not None and around.parent is not None:
                if around.caller.op_type == "Loop":
                    count *= _iterations(context, around.parent, around.caller) or 1
                around = around.parent
            if count > _MOST_ITERATIONS and _never_ends(context, scope, node):
                message = f"Loop goes on for {_count_text(count)} iterations, and its condition never changes"
                yield RESOURCE_BOMB.violated(node, message)


def _iterations(context: CheckContext, scope: Scope, node: NodeProto) -> int:
    """A Loop's trip count if it is a constant, 1 if it is computed, 0 if there is none."""
    if not input_of(node, 0):
        return 0
    found = context.integers(scope, input_of(node, 0))
    return max(found[0], 1) if found else 1


def _never_ends(context: CheckContext, scope: Scope, node: NodeProto) -> bool:
    """Whether the body returns its condition unchanged, or a constant."""
    body = next((item.g for item in node.attribute if item.name == "body"), None)
    inner = next(scope.bodies(node), None)
    if body is None or inner is None or not body.output or len(body.input) < 2:
        return False
    name, _ = inner.source(str(body.output[0].name))
    return name == body.input[1].name or context.constant(inner, name) is not None
