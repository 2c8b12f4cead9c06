"""Constants that ask for huge tensors or endless loops, told from shapes: nothing of the file is run."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from onnx import NodeProto, TensorProto, helper

from ..onnxgraph import Scope, attributes_of, typed
from .graph import ONNX_ERRORS
from .report import Finding, failed
from .subject import Subject, input_of, label, stored

_LARGEST_VALUE = 2**30
"""Bytes of a value whose size follows from the file alone; more is no model's activation."""
_LARGEST_FILL = 2**28
"""Bytes of what is made of constants alone, which ONNX Runtime would fold when it opens the file."""
_MOST_FILLED = 2**30
_MOST_TRIPS = 10**7
_FILLS = frozenset({"ConstantOfShape", "RandomNormal", "RandomUniform", "Range", "EyeLike", "Expand", "Tile", "OneHot"})
_MIB = 2**20


def resource_bomb(subject: Subject) -> Iterator[Finding]:
    """Whatever is too large or too long before any input is known."""
    yield from _declared(subject)
    filled = 0
    for scope, node in subject.nodes:
        size = max((_bytes(subject, scope, node, output) for output in node.output if output), default=0)
        from_constants = node.op_type in _FILLS and _is_constant(subject, scope, node)
        filled += size if from_constants else 0
        if size > (_LARGEST_FILL if from_constants else _LARGEST_VALUE):
            yield failed("resource-bomb", label(node), f"{node.op_type} makes {_shown(size)} whatever its input")
        if node.op_type == "Loop":
            yield from _endless(subject, scope, node)
    if filled > _MOST_FILLED:
        yield failed("resource-bomb", "", f"its constants fill {_shown(filled)} together")


def _shown(size: int) -> str:
    return f"{size // _MIB} MiB" if size < 2**60 else f"2^{size.bit_length() - 1} bytes"


def _declared(subject: Subject) -> Iterator[Finding]:
    """Tensors that say much more than they hold; `subject.model` may have lost what was large and whole."""
    for name, tensor in stored(subject.model):
        inside = tensor.data_location != TensorProto.EXTERNAL
        if any(dim < 0 for dim in tensor.dims):
            continue
        size = prod(tensor.dims) * _item_bytes(tensor.data_type)
        if inside and size > _LARGEST_FILL and tensor.ByteSize() < size // 8:
            message = f"is declared as {_shown(size)} and stored in {tensor.ByteSize()} bytes"
            yield failed("resource-bomb", name, message)


def _item_bytes(elem_type: int) -> int:
    try:
        return int(helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
    except ONNX_ERRORS:
        return 1


def _bytes(subject: Subject, scope: Scope, node: NodeProto, output: str) -> int:
    """The bytes of a value as far as the file fixes them: an open axis counts as 1."""
    home = scope.home(output)
    kind = home.types.get(output) if home is not None else None
    item = _item_bytes(kind.tensor_type.elem_type) if kind is not None else 4
    shape = scope.shape(output) or ()
    known = prod(dim for dim in shape if isinstance(dim, int) and dim > 0)
    return item * max(known, _asked(subject, scope, node))


def _asked(subject: Subject, scope: Scope, node: NodeProto) -> int:
    """How many numbers the node's own constants ask for, where shape inference does not follow them."""
    if node.op_type in ("ConstantOfShape", "Expand"):
        shape = subject.integers(scope, input_of(node, 0 if node.op_type == "ConstantOfShape" else 1))
        return prod(max(dim, 1) for dim in shape) if shape else 1
    if node.op_type in ("RandomNormal", "RandomUniform"):
        return prod(max(dim, 1) for dim in typed(attributes_of(node), "shape", list) if isinstance(dim, int))
    if node.op_type == "Tile":
        repeats = subject.integers(scope, input_of(node, 1))
        before = prod(dim for dim in scope.shape(input_of(node, 0)) or () if isinstance(dim, int) and dim > 0)
        return before * prod(max(item, 1) for item in repeats) if repeats else 1
    if node.op_type == "OneHot":
        depth = subject.integers(scope, input_of(node, 1))
        return max(depth[0], 1) if depth else 1
    if node.op_type == "Range":
        ends = [subject.constant(scope, input_of(node, index)) for index in range(3)]
        if all(end is not None and end.size == 1 and end.dtype.kind in "iuf" for end in ends):
            start, limit, delta = (float(end.ravel()[0]) for end in ends if end is not None)
            steps = (limit - start) / delta if delta else 0.0
            return int(min(max(steps, 1.0), 2.0**62)) if steps == steps else 1  # noqa: PLR0124 - not for a NaN
    return 1


def _is_constant(subject: Subject, scope: Scope, node: NodeProto) -> bool:
    """Whether nothing that the model is given reaches the node."""
    return not any(scope.data_sources(name) for name in node.input if name and name not in subject.constants)


def _endless(subject: Subject, scope: Scope, node: NodeProto) -> Iterator[Finding]:
    """A Loop whose count is huge and whose condition cannot change."""
    trips = subject.integers(scope, input_of(node, 0)) if input_of(node, 0) else [2**63 - 1]
    count = trips[0] if trips else 0
    around = scope
    while around.caller is not None and around.parent is not None:
        if around.caller.op_type == "Loop":
            outer = subject.integers(around.parent, input_of(around.caller, 0))
            count *= max(outer[0], 1) if outer else 1
        around = around.parent
    body = next((item.g for item in node.attribute if item.name == "body"), None)
    if count <= _MOST_TRIPS or body is None or not body.output or len(body.input) < 2:
        return
    inner = next(scope.bodies(node), None)
    name = str(body.output[0].name)
    for _ in range(8):
        producer = inner.producer(name) if inner is not None else None
        if producer is None or producer.op_type not in ("Identity", "Cast") or not producer.input:
            break
        name = str(producer.input[0])
    if name == body.input[1].name or name in subject.constants:
        yield failed("resource-bomb", label(node), f"Loop goes on for {count} rounds, and its condition never changes")
