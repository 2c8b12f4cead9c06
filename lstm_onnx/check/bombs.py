"""What asks for huge tensors or endless loops, told from shapes at the smallest sizes: nothing of the file is run.

Shape inference itself is no safe place: it computes the numbers that shapes are made of, and inlines
functions that call functions.  So the cheap questions come first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from math import prod
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper

from ..onnxgraph import MOST_NODES, Scope, Shape, attributes_of, inlined_size, shape_of, typed
from .context import Subject, input_of, label, stored
from .graph import ONNX_ERRORS
from .inference import bare, inferred
from .report import Finding, failed

_RULE = "resource-bomb"
_LARGEST_VALUE = 2**28
"""Bytes of a value at a batch and a time of 1; more is no model's activation."""
_MOST_GROWN = 16
"""Or so many times the bytes that are stored or put in, for weights that are turned, made wider, multiplied."""
_MOST_TRIPS = 10**6
_MIB = 2**20


def resource_bomb(file: str, model: ModelProto) -> list[Finding]:
    """Whatever is too large or too long before any input is known."""
    count = inlined_size(model)
    if count > MOST_NODES:
        return [failed(_RULE, "", f"its functions call each other: {_large(count)} nodes when they are inlined")]
    found = list(_declared(model))
    smallest = _smallest(model)
    put_in = sum(_type_bytes(value.type, shape_of(value.type)) for value in smallest.graph.input)
    limit = max(_LARGEST_VALUE, _MOST_GROWN * (put_in + _stored_bytes(file, model)))
    for data_prop in (False, True):
        if not found:
            try:
                subject = Subject(file, model, inferred(smallest, data_prop=data_prop))
            except ONNX_ERRORS:
                return found  # whose shapes cannot be inferred: a rule of its own tells
            found = [*_endless_loops(subject), *islice(_large_values(subject, limit), 1)]
    return found


def _large(count: int) -> str:
    return str(count) if count < 10**12 else f"2^{count.bit_length() - 1}"


def _shown(size: int) -> str:
    return f"{size // _MIB} MiB" if size < 2**60 else f"2^{size.bit_length() - 1} bytes"


def _declared(model: ModelProto) -> Iterator[Finding]:
    """Tensors that say much more than they hold."""
    for name, tensor in stored(model):
        inside = tensor.data_location != TensorProto.EXTERNAL
        size = prod(tensor.dims) * _item_bytes(tensor.data_type)
        if inside and size > _LARGEST_VALUE and tensor.ByteSize() < size // _MOST_GROWN:
            message = f"is declared as {_shown(size)} and stored in {tensor.ByteSize()} bytes"
            yield failed(_RULE, name, message)


def _stored_bytes(file: str, model: ModelProto) -> int:
    """Of the file and of those beside it that it names."""
    places = {
        entry.value
        for _, tensor in stored(model)
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
    """The model with open axes of 1, so that sizes that are computed from them follow."""
    small = bare(model)
    for value in small.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = 1
    for field in ("value_info", "output"):
        for value in getattr(small.graph, field):
            value.type.tensor_type.ClearField("shape")
    return small


def _large_values(subject: Subject, limit: int) -> Iterator[Finding]:
    for scope, node in subject.nodes:
        size = max((_bytes(scope, output) for output in node.output if output), default=0)
        if node.op_type in ("RandomNormal", "RandomUniform"):
            size = max(size, 4 * prod(_sizes(typed(attributes_of(node), "shape", list))))
        if size > limit:
            yield failed(_RULE, label(node), f"{node.op_type} makes {_shown(size)} whatever its input")


def _bytes(scope: Scope, output: str) -> int:
    """The bytes of a value as far as they are known; an axis that is not counts as 1."""
    home = scope.home(output)
    kind = home.types.get(output) if home is not None else None
    return _type_bytes(kind, scope.shape(output)) if kind is not None else 0


def _type_bytes(kind: TypeProto, shape: Shape | None) -> int:
    return _item_bytes(kind.tensor_type.elem_type) * prod(_sizes(shape or ()))


def _sizes(shape: Sequence[object]) -> list[int]:
    return [dim for dim in shape if isinstance(dim, int) and dim > 0]


def _endless_loops(subject: Subject) -> Iterator[Finding]:
    """Loops whose count is huge and whose condition cannot change."""
    for scope, node in subject.nodes:
        if node.op_type == "Loop":
            count = _trips(subject, scope, node) or 2**63 - 1
            around = scope
            while around.caller is not None and around.parent is not None:
                if around.caller.op_type == "Loop":
                    count *= _trips(subject, around.parent, around.caller) or 1
                around = around.parent
            if count > _MOST_TRIPS and _goes_on(subject, scope, node):
                said = f"Loop goes on for {_large(count)} rounds, and its condition never changes"
                yield failed(_RULE, label(node), said)


def _trips(subject: Subject, scope: Scope, node: NodeProto) -> int:
    """A Loop's count where it is a constant, 1 where it is computed, 0 where there is none."""
    if not input_of(node, 0):
        return 0
    found = subject.integers(scope, input_of(node, 0))
    return max(found[0], 1) if found else 1


def _goes_on(subject: Subject, scope: Scope, node: NodeProto) -> bool:
    """Whether the body hands its condition on as it came, or a constant."""
    body = next((item.g for item in node.attribute if item.name == "body"), None)
    inner = next(scope.bodies(node), None)
    if body is None or inner is None or not body.output or len(body.input) < 2:
        return False
    name = str(body.output[0].name)
    for _ in range(len(body.node) + 1):
        producer = inner.producer(name)
        if producer is None or producer.op_type not in ("Identity", "Cast") or not producer.input:
            break
        name = str(producer.input[0])
    return name == body.input[1].name or subject.constant(inner, name) is not None
