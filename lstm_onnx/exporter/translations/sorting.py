"""Translations of sorts, largest numbers and their places, searches, medians, k-th smallest numbers, and runs.

PyTorch takes NaN for the largest number of a sort, and for the best one of an argmax or an argmin; ONNX Runtime's
kernels leave open where it comes.  Here an infinity stands in its place to be compared: of a NaN beside an infinity
the first one counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_argmax, aten_argmin

from ...errors import ExportError
from .size_arithmetic import FLOAT, INT64, along_axis, cast, constant, is_fraction, op, typed

_NOT_IN_TOPK = (ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT16, ir.DataType.INT8, ir.DataType.UINT8)


def _top_k(x: Any, k: Any, dim: int, *, largest: bool) -> tuple[Any, Any]:
    """Sorting by TopK, which keeps the order of equal numbers."""
    whole = x.dtype in _NOT_IN_TOPK
    values, indices = op.TopK(cast(x, INT64) if whole else x, k, axis=dim, largest=int(largest), sorted=1)
    return (cast(values, x.dtype) if whole else values), indices


def without_nan(x: Any, infinity: float = math.inf) -> Any:
    """The numbers to compare: an infinity for each NaN."""
    if not is_fraction(x) or _is_without_nan(x):
        return x
    return typed(op.Where(op.IsNaN(x), constant(infinity, x.dtype), x), x.dtype, x.shape)


def _is_without_nan(x: Any) -> bool:
    """Whether another number is in the place of each NaN already, as in a module that was made from a file."""
    chosen = x.producer()
    if chosen is None or chosen.op_type != "Where":
        return False
    condition, number, numbers = chosen.inputs
    asked = condition.producer()
    while (made := number.producer()) is not None and made.op_type == "Cast":
        number = made.inputs[0]
    value = ir.convenience.get_const_tensor(number)
    is_nan = asked is not None and asked.op_type in ("IsNaN", "aten_isnan") and asked.inputs[0] is numbers
    return is_nan and value is not None and not np.isnan(value.numpy()).any()


def _ordered(x: Any, k: Any, dim: int, *, largest: bool) -> tuple[Any, Any]:
    """The k largest or smallest entries and their indices, as in PyTorch: NaN is larger than all numbers."""
    if not is_fraction(x):
        return _top_k(x, k, dim, largest=largest)
    indices = _top_k(without_nan(x), k, dim, largest=largest)[1]
    return op.GatherElements(x, indices, axis=dim), indices


def _size(x: Any, dim: int) -> Any:
    """int64 ``(1,)``."""
    return op.Shape(x, start=dim, end=dim + 1)


@along_axis
def _sorted(x: Any, dim: int, descending: bool = False, **_: Any) -> Any:
    return _ordered(x, _size(x, dim), dim, largest=descending)


def _largest(x: Any, k: Any, dim: int = -1, largest: bool = True, *_: Any, **__: Any) -> Any:
    count = constant([k], INT64) if isinstance(k, int) else op.Reshape(k, constant([1], INT64))
    return along_axis(lambda x, dim: _ordered(x, count, dim, largest=largest))(x, dim)


def _place(find: Callable[..., Any], infinity: float) -> Callable[..., Any]:
    """argmax or argmin."""

    def place(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        found = find(without_nan(x, infinity), dim, keepdim)
        # torchlib's search of all axes gives shape (1,) for keepdim.
        return op.Reshape(found, constant([1] * len(x.shape), INT64)) if dim is None and keepdim else found

    return place


def _search_sorted(
    boundaries: Any,
    x: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """How many boundaries of its row each number lies beyond."""
    if sorter is not None:
        raise ExportError("searchsorted with a sorter has no translation to ONNX; sort the boundaries before")
    kind = FLOAT if is_fraction(boundaries) != is_fraction(x) else None
    rows, numbers = (item if kind is None or is_fraction(item) else cast(item, kind) for item in (boundaries, x))
    if len(boundaries.shape) > 1:
        rows = op.Unsqueeze(rows, constant([-2], INT64))
    compare = op.LessOrEqual if right or side == "right" else op.Less
    beyond = compare(rows, op.Unsqueeze(numbers, constant([-1], INT64)))
    if is_fraction(numbers):
        beyond = op.Or(beyond, op.IsNaN(op.Unsqueeze(numbers, constant([-1], INT64))))
    count = op.ReduceSum(op.Cast(beyond, to=INT64), constant([-1], INT64), keepdims=0)
    return op.Cast(count, to=ir.DataType.INT32) if out_int32 else count


def _smallest(x: Any, k: Any, dim: int, keepdim: bool, most_nans: Any) -> tuple[Any, Any]:
    """The k-th smallest numbers (k int64 ``(1,)``) and their indices; NaN where more than `most_nans` are NaN."""
    axes = constant([dim], INT64)
    nan = None
    if is_fraction(x):
        nan = op.IsNaN(x)
        count = op.ReduceSum(op.Cast(nan, to=INT64), axes, keepdims=1)
        x = without_nan(x)
        nan = op.Greater(count, most_nans)
    found = [op.Gather(part, constant([-1], INT64), axis=dim) for part in _top_k(x, k, dim, largest=False)]
    if nan is not None:
        found[0] = op.Where(nan, constant(math.nan, x.dtype), found[0])
    values, indices = found if keepdim else [op.Squeeze(part, axes) for part in found]
    return values, indices


@along_axis
def _median(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    """The median: of an even count the smaller one in the middle; NaN if any number is."""
    middle = op.Div(op.Add(_size(x, dim), constant([1], INT64)), constant([2], INT64))
    return _smallest(x, middle, dim, keepdim, constant([0], INT64))


@along_axis
def _nan_median(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The median of the numbers that are not NaN; NaN if there is none."""
    if not is_fraction(x):
        return _median(x, dim, keepdim)
    axes = constant([dim], INT64)
    nan = typed(cast(op.IsNaN(x), INT64), INT64, x.shape)
    count = op.Sub(_size(x, dim), op.ReduceSum(nan, axes, keepdims=1))
    middle = op.Div(op.Sub(count, constant([1], INT64)), constant([2], INT64))
    order = _top_k(nan, _size(x, dim), dim, largest=False)[1]  # NaN last, even after infinity
    numbers = without_nan(x)
    ordered = typed(op.GatherElements(numbers, order, axis=dim), x.dtype, x.shape)
    values, places = _top_k(ordered, _size(x, dim), dim, largest=False)
    index = op.GatherElements(order, op.GatherElements(places, middle, axis=dim), axis=dim)
    value = op.GatherElements(values, middle, axis=dim)
    value = op.Where(op.Equal(count, constant([0], INT64)), constant(math.nan, x.dtype), value)
    return (value, index) if keepdim else (op.Squeeze(value, axes), op.Squeeze(index, axes))


def _of_all(median: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    def of_all(x: Any) -> Any:
        return median(typed(op.Reshape(x, constant([-1], INT64)), x.dtype, [None]), 0)[0]

    return of_all


def _kth_value(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """torch.kthvalue, for which NaN is larger than all numbers."""
    number = constant([k], INT64)
    return along_axis(lambda x, dim: _smallest(x, number, dim, keepdim, op.Sub(_size(x, dim), number)))(x, dim)


def _unique_consecutive(
    x: Any,
    return_inverse: bool = False,  # noqa: ARG001
    return_counts: bool = False,  # noqa: ARG001
    dim: int | None = None,
) -> tuple[Any, Any, Any]:
    """The first number of each run of equal ones, the number of each entry's run, and the lengths of the runs."""
    if dim is not None and len(x.shape) > 1:
        raise ExportError(
            "unique_consecutive along an axis of several has no translation to ONNX; leave out dim, or give it one axis"
        )
    flat = typed(op.Reshape(x, constant([-1], INT64)), x.dtype, [None])
    numbers = flat if is_fraction(x) else cast(flat, INT64)
    zero, one, size = constant([0], INT64), constant([1], INT64), op.Shape(flat)
    changes = op.Not(op.Equal(op.Slice(numbers, one, size), op.Slice(numbers, zero, constant([-1], INT64))))
    begins = op.Slice(op.Concat(constant([True], ir.DataType.BOOL), changes, axis=0), zero, size)
    inverse = op.Reshape(op.Sub(op.CumSum(op.Cast(begins, to=INT64), constant(0, INT64)), one), op.Shape(x))
    places = op.Range(constant(0, INT64), op.Squeeze(size), constant(1, INT64))
    starts = op.Compress(places, begins, axis=0)
    ends = op.Concat(op.Slice(starts, one, size), size, axis=0)
    return op.Compress(flat, begins, axis=0), inverse, op.Sub(ends, starts)


def _unique(x: Any, *_: Any, **__: Any) -> tuple[Any, Any, Any]:
    """torch.unique, for which each NaN differs from all others; ONNX Runtime's kernel loses numbers beside a NaN."""
    flat = typed(op.Reshape(x, constant([-1], INT64)), x.dtype, [None])
    numbers, order = _ordered(flat, op.Shape(flat), 0, largest=False)
    values, runs, counts = _unique_consecutive(typed(numbers, x.dtype, [None]))
    return values, op.Reshape(op.ScatterElements(order, order, runs, axis=0), op.Shape(x)), counts


SORTING: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.sort.stable: _sorted,
    torch.ops.aten.sort.default: _sorted,
    torch.ops.aten.topk.default: _largest,
    torch.ops.aten.argmax.default: _place(aten_argmax, math.inf),
    torch.ops.aten.argmin.default: _place(aten_argmin, -math.inf),
    torch.ops.aten.searchsorted.Tensor: _search_sorted,
    torch.ops.aten.median.dim: _median,
    torch.ops.aten.median.default: _of_all(_median),
    torch.ops.aten.nanmedian.dim: _nan_median,
    torch.ops.aten.nanmedian.default: _of_all(_nan_median),
    torch.ops.aten.kthvalue.default: _kth_value,
    torch.ops.aten.unique_consecutive.default: _unique_consecutive,
    torch.ops.aten._unique2.default: _unique,
}
