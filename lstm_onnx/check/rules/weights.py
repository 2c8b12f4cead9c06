"""The rules on stored numbers: twice the same bytes, NaN and infinity, shapes that fit no operator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...onnxgraph import Scope, attributes_of, is_default, nodes_of, shown, text, typed
from ..context import QUANTISED, RECURRENT, Subject, input_of, label, stored
from ..graph import ONNX_ERRORS, batch_axis
from ..report import Finding, failed
from .files import external_problem

_LEAST_BYTES = 1024
_MOST_BYTES = 2**31
_MATRICES = {**dict.fromkeys(RECURRENT, range(1, 8)), "MatMul": range(2), "Gemm": range(3), "Conv": range(1, 3)}
"""Which inputs of these operators are weights, where an infinity has no business."""
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def stored_numbers(subject: Subject) -> list[Finding]:
    """What the contents of the weights say: NaN and infinity, and the same bytes again."""
    operands = {
        name
        for node in nodes_of(subject.model.graph.node)
        if node.op_type in _MATRICES and is_default(node.domain)
        for index, name in enumerate(node.input)
        if name and index in _MATRICES[node.op_type]
    }
    found: list[Finding] = []
    seen: dict[tuple[object, ...], str] = {}
    doubled: list[tuple[str, str, int]] = []
    for name, tensor in stored(subject.model):
        array = _numbers(subject.file, tensor)
        if array is None or not array.size:
            continue
        if tensor.data_type in _FLOATS:
            found += _non_finite(name, array, weight=name in operands)
        if array.nbytes >= _LEAST_BYTES and sum(size > 2 for size in array.shape) > 1:
            digest = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).digest()
            first = seen.setdefault((array.shape, tensor.data_type, digest), name)
            if first != name:
                doubled.append((name, first, array.nbytes))
    if doubled:
        pairs = ", ".join(f"{name} is {first}" for name, first, _ in doubled[:5])
        more = ", ..." if len(doubled) > 5 else ""
        message = f"{sum(size for *_, size in doubled)} bytes are there already: {pairs}{more}"
        found.append(failed("doubled-weights", doubled[0][0], message))
    return found


def _numbers(file: str, tensor: TensorProto) -> np.ndarray | None:
    """The numbers of a stored tensor; None where they are not there in full, which other rules tell."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = prod(tensor.dims)
        if any(dim < 0 for dim in tensor.dims) or size * dtype.itemsize > _MOST_BYTES or dtype.kind == "O":
            return None
        if tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        keys = {entry.key: entry.value for entry in tensor.external_data}
        if not size or external_problem(file, keys):
            return None
        path = Path(file).resolve().parent / keys["location"]
        return np.memmap(path, dtype, "r", int(keys.get("offset") or 0), tuple(tensor.dims))
    except ONNX_ERRORS:
        return None


def _non_finite(name: str, array: np.ndarray, *, weight: bool) -> list[Finding]:
    # Infinities are masks, elsewhere; a type that numpy does not know as a float is judged as float32.
    wide = array if array.dtype.kind == "f" else array.astype(np.float32)
    wrong = ~np.isfinite(wide) if weight else np.isnan(wide)
    count = int(np.count_nonzero(wrong))
    if not count:
        return []
    return [failed("non-finite-weights", name, f"{count} of its {array.size} numbers are NaN or infinite")]


def weight_shapes(subject: Subject) -> Iterator[Finding]:
    """W, R, B and P against hidden_size, direction and the input."""
    for scope, node in subject.recurrent:
        yield from _misfits(scope, node)
    for scope, node in subject.nodes:
        if node.op_type == QUANTISED:
            yield from _misfits(scope, node, transposed=True)


def _misfits(scope: Scope, node: NodeProto, *, transposed: bool = False) -> Iterator[Finding]:
    attributes = attributes_of(node)
    gates = RECURRENT.get(node.op_type, 4)
    directions = 2 if text(attributes.get("direction", "forward")) == "bidirectional" else 1
    recurrent = _dims(scope, node, 2)
    hidden = typed(attributes, "hidden_size", int) or (recurrent[1 if transposed else -1] if len(recurrent) > 2 else 0)
    x = scope.shape(input_of(node, 0)) or ()
    wide = x[2] if len(x) == 3 and isinstance(x[2], int) else None
    states = [directions, None, hidden] if batch_axis(node) else [None, directions, hidden]
    rows = gates * hidden
    expected: dict[int, tuple[str, list[int | None]]] = {
        1: ("W", [directions, wide, rows] if transposed else [directions, rows, wide]),
        2: ("R", [directions, hidden, rows] if transposed else [directions, rows, hidden]),
        3: ("B", [directions, 2 * rows]),
        5: ("initial_h", states),
        6: ("initial_c", states),
        7: ("P", [directions, 3 * hidden]),
    }
    said = f"{node.op_type} with hidden_size {hidden} and {directions} direction{'s' * (directions - 1)}"
    for index, (kind, dims) in expected.items():
        name = input_of(node, index)
        actual = scope.shape(name) if name else None
        if actual is None or not hidden:
            continue
        fits = len(actual) == len(dims) and all(
            want is None or not isinstance(size, int) or size == want for size, want in zip(actual, dims, strict=True)
        )
        if not fits:
            yield failed(
                "weight-shapes", label(node), f"{kind} {name} is {shown(actual)}, and {said} wants {shown(tuple(dims))}"
            )


def _dims(scope: Scope, node: NodeProto, index: int) -> tuple[int, ...]:
    return scope.weight(input_of(node, index)).dims if input_of(node, index) else ()
