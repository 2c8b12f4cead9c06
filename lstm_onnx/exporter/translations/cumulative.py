"""Translations of functions that go over a tensor entry by entry, each as a Scan.

torch.onnx's logcumsumexp takes the largest number of all away, so that it is -inf where the numbers up to there are
smaller by 104; it has no cumprod, cummax and cummin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import evaluator

from .size_arithmetic import DOUBLE, INT64, along_axis, cast, constant, is_fraction, op, requested, typed
from .wide_range import in_single, log_add_exp

_Step = Callable[..., Sequence[Any]]
"""The states and an entry, to the new states."""
BODY = "cumulative"
"""The name of the body of every Scan that is written here, and of no loop in the module's code."""


def _over_entries(step: _Step, states: Sequence[Any], x: Any, dim: int) -> list[Any]:
    """The states after each entry along an axis, with that axis in its place."""
    dim %= len(x.shape)
    recorder: Any = evaluator.default()
    before = [_input(f"state_{number}", state.dtype, state.shape) for number, state in enumerate(states)]
    entry = _input("entry", x.dtype, _sizes(x, dim))
    outside, recorder.nodes = recorder.nodes, []
    try:
        after = step(*before, entry)
        # An output of a body is the node's own state and its row: two values.
        rows = [op.Identity(state) for state in after]
        body = ir.Graph([*before, entry], [*after, *rows], nodes=recorder.nodes, name=BODY)
    finally:
        recorder.nodes = outside
    attributes = [
        ir.AttrGraph("body", body),
        ir.AttrInt64("num_scan_inputs", 1),
        ir.AttrInt64s("scan_input_axes", [dim]),
        ir.AttrInt64s("scan_output_axes", [dim] * len(rows)),
    ]
    node = ir.Node("", "Scan", [*states, x], attributes, num_outputs=2 * len(states), version=op.version)
    recorder.nodes.append(node)
    return [typed(row, state.dtype, x.shape) for row, state in zip(node.outputs[len(states) :], states, strict=True)]


def _input(name: str, kind: ir.DataType, sizes: Any) -> Any:
    return ir.Value(name=name, shape=ir.Shape(sizes), type=ir.TensorType(kind))


def _sizes(x: Any, dim: int) -> list[Any]:
    """Of an entry along an axis."""
    return [size for axis, size in enumerate(x.shape) if axis != dim % len(x.shape)]


def _first(x: Any, dim: int) -> Any:
    """The first entry along an axis."""
    return typed(op.Gather(x, constant(0, INT64), axis=dim), x.dtype, _sizes(x, dim))


def _filled(number: Any, kind: ir.DataType, x: Any, dim: int) -> Any:
    """The number at each place of an entry."""
    dim %= len(x.shape)
    sizes = op.Concat(op.Shape(x, start=0, end=dim), op.Shape(x, start=dim + 1), axis=0)
    return typed(op.Expand(constant(number, kind), sizes), kind, _sizes(x, dim))


def _log_cum_sum_exp(x: Any, dim: int) -> Any:
    if len(x.shape) == 0:
        return op.Identity(x)
    start = _filled(-math.inf, x.dtype, x, dim)
    return _over_entries(lambda total, entry: [log_add_exp(total, entry)], [start], x, dim)[0]


def _cum_prod(x: Any, dim: int, dtype: int | None = None) -> Any:
    """Of fractions in double, as PyTorch's kernel: a product beyond float32 may come back."""
    kind = requested(dtype) or (x.dtype if is_fraction(x) else INT64)
    x = cast(x, kind)
    if len(x.shape) == 0:
        return op.Identity(x)
    wide = DOUBLE if is_fraction(x) else kind
    start = _filled(1, wide, x, dim)
    return cast(_over_entries(lambda product, entry: [op.Mul(product, entry)], [start], cast(x, wide), dim)[0], kind)


def _extreme(is_beyond: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Largest or smallest numbers so far, and where they are: of equal ones the last, and a NaN once there is one."""

    def translated(x: Any, dim: int) -> tuple[Any, Any]:
        if x.dtype == ir.DataType.BOOL:  # neither compared nor chosen between by any kernel
            values, places = translated(cast(x, INT64), dim)
            return cast(values, ir.DataType.BOOL), places

        def step(best: Any, place: Any, here: Any, entry: Any) -> list[Any]:
            taken = is_beyond(entry, best)
            if is_fraction(x):
                taken = op.Or(taken, op.IsNaN(entry))
            return [op.Where(taken, entry, best), op.Where(taken, here, place), op.Add(here, constant(1, INT64))]

        zeros = _filled(0, INT64, x, dim)
        values, places, _ = _over_entries(step, [_first(x, dim), zeros, zeros], x, dim)
        return values, places

    return along_axis(translated)


_aten = torch.ops.aten
CUMULATIVE: Mapping[Any, Callable[..., Any]] = {
    _aten.logcumsumexp.default: in_single(_log_cum_sum_exp),
    _aten.cumprod.default: _cum_prod,
    _aten.cummax.default: _extreme(op.GreaterOrEqual),
    _aten.cummin.default: _extreme(op.LessOrEqual),
}
"""Translations of operators, each in the place of torch.onnx's, if it has one."""
