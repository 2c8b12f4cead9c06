"""Translations of means of whole numbers, and of the largest number of masks and of whole tensors.

torch.onnx's mean of integers as floats is rounded before it is cast; ONNX Runtime has no maximum of booleans, and
torch.onnx's needs the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_max_dim, aten_min_dim

from .size_arithmetic import INT64, cast, constant, op

_UINT8 = ir.DataType.UINT8


def _mean(x: Any, dim: int | Sequence[int] | None, keepdim: bool = False, dtype: int | None = None) -> Any:
    """Cast first, as PyTorch does."""
    rank = len(x.shape)
    if dtype not in (None, -1) and x.dtype != ir.DataType(dtype):
        x = cast(x, ir.DataType(dtype))
    if rank == 0:
        return op.Identity(x)
    axes = [dim] if isinstance(dim, int) else list(dim or range(rank))
    return op.ReduceMean(x, constant(axes, INT64), keepdims=int(keepdim))


def _without_booleans(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A maximum or minimum of a tensor, of booleans by way of bytes."""

    def translated(x: Any) -> Any:
        if x.dtype != ir.DataType.BOOL:
            return compute(x)
        return cast(compute(_bytes(x)), ir.DataType.BOOL)

    return translated


def _bytes(x: Any) -> Any:
    value = cast(x, _UINT8)
    value.shape = x.shape
    return value


def _extremes(reduce: Callable[..., Any]) -> Callable[..., Any]:
    """amax or amin, along all axes if none is named."""

    def translated(x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
        axes = [constant(list(dim), INT64)] if dim else []
        return _without_booleans(lambda value: reduce(value, *axes, keepdims=int(keepdim)))(x)

    return translated


def _of_all(reduce: Callable[..., Any]) -> Callable[..., Any]:
    return _without_booleans(lambda x: reduce(x, keepdims=0))


def _along(compute: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    def translated(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
        if x.dtype != ir.DataType.BOOL:
            return compute(x, dim, keepdim)
        values, places = compute(_bytes(x), dim, keepdim)
        return cast(values, ir.DataType.BOOL), places

    return translated


_aten = torch.ops.aten
REDUCTIONS: Mapping[Any, Callable[..., Any]] = {
    _aten.mean.dim: _mean,
    _aten.amax.default: _extremes(op.ReduceMax),
    _aten.amin.default: _extremes(op.ReduceMin),
    _aten.max.default: _of_all(op.ReduceMax),
    _aten.min.default: _of_all(op.ReduceMin),
    _aten.max.dim: _along(aten_max_dim),
    _aten.min.dim: _along(aten_min_dim),
}
