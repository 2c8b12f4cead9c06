"""Translations of means and extremes of a tensor, and of scatters, which reduce the entries of a place.

torch.onnx's mean of integers as floats is rounded before it is cast, and its maximum needs the axes.  ONNX Runtime's
maximum and minimum leave out a NaN unless it is the first of the entries, where PyTorch's are NaN.  ONNX's
ScatterElements takes as many entries as there are indices, and knows no mean; torch.onnx writes the mean as the last of
the entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_scatter_add, aten_scatter_src
from onnxscript.function_libs.torch_lib.ops.linalg import aten_linalg_vector_norm

from ...errors import ExportError
from .size_arithmetic import INT64, along_axis, cast, constant, is_fraction, op, requested, typed
from .sorting import without_nan

_SCATTERED = {"sum": "add", "add": "add", "mean": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}
"""ONNX's names of the reductions of scatters, by torch's."""


def _mean(x: Any, dim: int | Sequence[int] | None, keepdim: bool = False, dtype: int | None = None) -> Any:
    """Cast first, as PyTorch does."""
    rank = len(x.shape)
    x = cast(x, requested(dtype) or x.dtype)
    if rank == 0:
        return op.Identity(x)
    axes = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return op.ReduceMean(x, constant(axes, INT64), keepdims=int(keepdim))


def _extreme(reduce: Callable[..., Any], x: Any, axes: Sequence[int], keepdims: bool) -> Any:
    """The largest or smallest entry along some axes, or all if none is named; NaN if there is one."""
    named = [constant(list(axes), INT64)] if axes else []
    found = reduce(x, *named, keepdims=int(keepdims))
    if not is_fraction(x):
        return found
    total = op.ReduceSum(op.Abs(x), *named, keepdims=int(keepdims))  # NaN of NaN alone: infinities do not cancel
    return op.Where(op.IsNaN(total), total, found)


def _extremes(reduce: Callable[..., Any]) -> Callable[..., Any]:
    """amax or amin, along all axes if none is named."""

    def translated(x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
        return _extreme(reduce, x, dim, keepdim)

    return translated


def _of_all(reduce: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: _extreme(reduce, x, (), keepdims=False)


def _along(reduce: Callable[..., Any], find: Callable[..., Any], infinity: float) -> Callable[..., tuple[Any, Any]]:
    """max or min along an axis: the values and their places."""

    def translated(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
        places = find(without_nan(x, infinity), axis=dim, keepdims=int(keepdim))
        return _extreme(reduce, x, [dim], keepdim), places

    return along_axis(translated)


def _vector_norm(
    x: Any, order: float = 2.0, dim: Sequence[int] | None = None, keepdim: bool = False, dtype: int = -1
) -> Any:
    axes = list(dim or range(len(x.shape)))  # torchlib's norm of all axes has no axes, also for keepdim
    if not math.isinf(order) or requested(dtype) or not axes:
        return aten_linalg_vector_norm(x, order, axes or None, keepdim, -1 if dtype is None else dtype)
    return _extreme(op.ReduceMax if order > 0 else op.ReduceMin, typed(op.Abs(x), x.dtype, x.shape), axes, keepdim)


def _fitting(source: Any, index: Any) -> Any:
    """The entries of the source that PyTorch takes: as many as the index has along each axis."""
    sizes, indices = (None if value.shape is None else [str(size) for size in value.shape] for value in (source, index))
    if sizes is None or indices is None or not sizes or (sizes == indices and "None" not in sizes):
        return source
    part = op.Slice(source, constant([0] * len(sizes), INT64), op.Shape(index))
    return typed(part, source.dtype, index.shape)


def _filled(number: Any, like: Any, index: Any) -> Any:
    return op.Expand(constant(number, like.dtype), op.Shape(index))


def _scatter_reduce(x: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool = True) -> Any:
    if reduce == "mean" and not is_fraction(x):
        raise ExportError("scatter_reduce gives no mean of whole numbers in ONNX; convert them to floats before")
    if len(x.shape) == 0:
        raise ExportError("scatter_reduce of a tensor without axes has no translation to ONNX; give it one")
    source, reduction = _fitting(source, index), _SCATTERED[reduce]
    start = x if include_self else op.ScatterElements(x, index, _filled(_neutral(reduction, x), x, index), axis=dim)
    found = op.ScatterElements(start, index, source, axis=dim, reduction=reduction)
    if reduce != "mean":
        return found
    one = constant(1.0, x.dtype)
    counts = op.Expand(constant(1.0 if include_self else 0.0, x.dtype), op.Shape(x))
    counts = op.ScatterElements(counts, index, _filled(1.0, x, index), axis=dim, reduction="add")
    return op.Div(found, op.Max(counts, one))  # where there are none, the number itself stays


def _neutral(reduction: str, x: Any) -> Any:
    """The number that changes no result."""
    if reduction in ("add", "mul"):
        return _as_kind(reduction == "mul", x)
    if is_fraction(x):
        return -math.inf if reduction == "max" else math.inf
    limits = np.iinfo(x.dtype.numpy())
    return int(limits.min if reduction == "max" else limits.max)


def _scatter_value(x: Any, dim: int, index: Any, value: float, *, reduce: str) -> Any:
    return _scatter_reduce(x, dim, index, _filled(_as_kind(value, x), x, index), reduce)


def _as_kind(number: float, x: Any) -> Any:
    return float(number) if is_fraction(x) else int(number)


_aten = torch.ops.aten
REDUCTIONS: Mapping[Any, Callable[..., Any]] = {
    _aten.mean.dim: _mean,
    _aten.amax.default: _extremes(op.ReduceMax),
    _aten.amin.default: _extremes(op.ReduceMin),
    _aten.max.default: _of_all(op.ReduceMax),
    _aten.min.default: _of_all(op.ReduceMin),
    _aten.max.dim: _along(op.ReduceMax, op.ArgMax, math.inf),
    _aten.min.dim: _along(op.ReduceMin, op.ArgMin, -math.inf),
    _aten.linalg_vector_norm.default: _vector_norm,
    _aten.scatter.src: lambda x, dim, index, src: aten_scatter_src(x, dim, index, _fitting(src, index)),
    _aten.scatter_add.default: lambda x, dim, index, src: aten_scatter_add(x, dim, index, _fitting(src, index)),
    _aten.scatter.reduce: lambda x, dim, index, src, *, reduce: _scatter_reduce(x, dim, index, src, reduce),
    _aten.scatter.value_reduce: _scatter_value,
    _aten.scatter_reduce.two: _scatter_reduce,
}
