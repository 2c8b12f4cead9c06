"""LO108, LO109, LO402: weights that are stored twice, not finite, or of the wrong shape."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...onnxgraph import ONNX_ERRORS, Scope, attributes_of, shown, stored_tensors, typed
from ...onnxgraph.recurrent import GATES, QUANTIZED_LSTM, batch_axis, direction_of, input_of
from ..context import CheckContext, listed
from ..finding import Finding
from ..rule import applies, rule
from .files import external_data_problem

_LEAST_BYTES = 1024
"""Smaller tensors may be equal by chance."""
_MOST_BYTES = 2**31
_WEIGHT_INPUTS = {**dict.fromkeys(GATES, range(1, 8)), "MatMul": range(2), "Gemm": range(3), "Conv": range(1, 3)}
"""The inputs of these operators that are weights, where an infinity is an error."""
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})

DOUBLED_WEIGHTS = rule(
    "LO108",
    "doubled-weights",
    "warning",
    summary="the same weights are stored more than once",
    why="Exporters write the weights of a module that is called twice, or whose parameters are tied, once for each "
    "call: the file and the memory that it takes are up to twice as large.",
    fix="export with lstm-onnx, which stores them once, or let the nodes share one initializer",
)
NON_FINITE_WEIGHTS = rule(
    "LO109",
    "non-finite-weights",
    "error",
    summary="a weight is NaN or infinite",
    why="Training diverged, or a cast to float16 overflowed. ONNX Runtime's LSTM on the CPU does not propagate "
    "a NaN as PyTorch does: the output can look like valid numbers.",
    fix="export from a checkpoint before training diverged; as float32 if float16 overflowed",
)
WEIGHT_SHAPES = rule(
    "LO402",
    "weight-shapes",
    "error",
    summary="W, R, B or P contradict hidden_size, direction or the input",
    why="onnx's checker does not notice, and ONNX Runtime opens such a file: it fails in the first run.",
    fix="write the weights as W (D, 4H, I), R (D, 4H, H), B (D, 8H), P (D, 3H), and the attributes to fit",
)


@applies(DOUBLED_WEIGHTS, NON_FINITE_WEIGHTS)
def weight_contents(context: CheckContext) -> Iterator[Finding]:
    """NaN, infinity, and the same bytes again."""
    weights = {
        scope.source(name)[0]  # behind a Cast from float16, a Transpose and the like
        for scope, node in context.onnx_nodes(*_WEIGHT_INPUTS)
        for index, name in enumerate(node.input)
        if name and index in _WEIGHT_INPUTS[node.op_type]
    }
    seen: dict[tuple[object, ...], str] = {}
    doubled: list[tuple[str, str, int]] = []
    for name, tensor in stored_tensors(context.model):
        array = _contents(context.file, tensor)
        if array is None or not array.size:
            continue
        if tensor.data_type in _FLOATS:
            yield from _non_finite(name, array, weight=name in weights)
        if array.nbytes >= _LEAST_BYTES and sum(size > 2 for size in array.shape) > 1:
            digest = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).digest()
            first = seen.setdefault((array.shape, tensor.data_type, digest), name)
            if first != name:
                doubled.append((name, first, array.nbytes))
    if doubled:
        pairs = listed([f"{name} is {first}" for name, first, _ in doubled])
        message = f"{sum(size for *_, size in doubled)} bytes are stored again: {pairs}"
        yield DOUBLED_WEIGHTS.violated(doubled[0][0], message)


def _contents(file: str, tensor: TensorProto) -> np.ndarray | None:
    """The contents of a stored tensor; None if they are missing or incomplete, which other rules report."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = prod(tensor.dims)
        if any(dim < 0 for dim in tensor.dims) or size * dtype.itemsize > _MOST_BYTES or dtype.kind == "O":
            return None
        if tensor.data_location != TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        if not size or external_data_problem(file, tensor):
            return None
        keys = {entry.key: entry.value for entry in tensor.external_data}
        path = Path(file).resolve().parent / keys["location"]
        return np.memmap(path, dtype, "r", int(keys.get("offset") or 0), tuple(tensor.dims))
    except ONNX_ERRORS:
        return None


def _non_finite(name: str, array: np.ndarray, *, weight: bool) -> Iterator[Finding]:
    # An infinity outside of weights is a mask; numpy supports bfloat16 only after a cast.
    wide = array if array.dtype.kind == "f" else array.astype(np.float32)
    wrong = ~np.isfinite(wide) if weight else np.isnan(wide)
    count = int(np.count_nonzero(wrong))
    if count:
        yield NON_FINITE_WEIGHTS.violated(name, f"{count} of its {array.size} numbers are NaN or infinite")


@applies(WEIGHT_SHAPES)
def weight_shapes(context: CheckContext) -> Iterator[Finding]:
    """W, R, B and P against hidden_size, direction and the input."""
    for scope, node in context.operators:
        yield from _misfits(scope, node, transposed=node.op_type == QUANTIZED_LSTM)


def _misfits(scope: Scope, node: NodeProto, *, transposed: bool) -> Iterator[Finding]:
    gates = GATES.get(node.op_type, GATES["LSTM"])
    directions = 2 if direction_of(node) == "bidirectional" else 1
    r_dims = scope.weight(input_of(node, 2)).dims if input_of(node, 2) else ()
    of_r = r_dims[1 if transposed else -1] if len(r_dims) > 2 else 0
    hidden = typed(attributes_of(node), "hidden_size", int) or of_r
    x = scope.shape(input_of(node, 0)) or ()
    input_size = x[2] if len(x) == 3 and isinstance(x[2], int) else None
    states = [directions, None, hidden] if batch_axis(node) else [None, directions, hidden]
    rows = gates * hidden
    expected: dict[int, tuple[str, list[int | None]]] = {
        1: ("W", [directions, input_size, rows] if transposed else [directions, rows, input_size]),
        2: ("R", [directions, hidden, rows] if transposed else [directions, rows, hidden]),
        3: ("B", [directions, 2 * rows]),
        5: ("initial_h", states),
        6: ("initial_c", states),
        7: ("P", [directions, 3 * hidden]),
    }
    operator = f"{node.op_type} with hidden_size {hidden} and {directions} direction{'s' * (directions - 1)}"
    for index, (kind, dims) in expected.items():
        name = input_of(node, index)
        actual = scope.shape(name) if name else None
        if actual is None or not hidden:
            continue
        fits = len(actual) == len(dims) and all(
            want is None or not isinstance(size, int) or size == want for size, want in zip(actual, dims, strict=True)
        )
        if not fits:
            message = f"{kind} {name} is {shown(actual)}, but {operator} needs {shown(tuple(dims))}"
            yield WEIGHT_SHAPES.violated(node, message)
