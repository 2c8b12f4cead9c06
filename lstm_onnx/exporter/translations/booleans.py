"""Translations of operators of booleans for which ONNX, or ONNX Runtime on the CPU, has no kernel of that dtype.

A sum of two is "or"; a choice between two, and of two extremes, is made of "and", "or" and "not".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_add, aten_masked_fill, aten_sort, aten_where

from .size_arithmetic import cast, constant, op

_BOOL = ir.DataType.BOOL


def _are_boolean(*values: Any) -> bool:
    """Whether values of one dtype are booleans; that of a constant may not be known yet."""
    kinds = {
        value.dtype if isinstance(value, ir.Value) else _BOOL if isinstance(value, bool) else 0 for value in values
    }
    return _BOOL in kinds and kinds <= {_BOOL, None}


def _as_boolean(value: Any) -> Any:
    if not isinstance(value, ir.Value):
        return constant(bool(value), _BOOL)
    return value if value.dtype == _BOOL else cast(value, _BOOL)


def _add(a: Any, b: Any, alpha: float = 1.0) -> Any:
    if not _are_boolean(a, b):
        return aten_add(a, b, alpha)
    return op.Or(_as_boolean(a), _as_boolean(b)) if alpha else op.Identity(a)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not _are_boolean(a, b):
        return aten_where(condition, a, b)
    return op.Or(op.And(condition, _as_boolean(a)), op.And(op.Not(condition), _as_boolean(b)))


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    return _where(mask, _as_boolean(value), x) if _are_boolean(x) else aten_masked_fill(x, mask, value)


def _sort(x: Any, dim: int = -1, descending: bool = False) -> Any:
    if not _are_boolean(x) or len(x.shape) == 0:
        return aten_sort(x, dim, descending)
    numbers = cast(x, ir.DataType.INT32)  # TopK's kernels are of these, not of bytes
    numbers.shape = x.shape
    values, places = aten_sort(numbers, dim, descending)
    return cast(values, _BOOL), places


_aten = torch.ops.aten
BOOLEANS: Mapping[Any, Callable[..., Any]] = {
    _aten.add.Tensor: _add,
    _aten.where.self: _where,
    _aten.where.Scalar: _where,
    _aten.where.ScalarSelf: _where,
    _aten.where.ScalarOther: _where,
    _aten.masked_fill.Scalar: _masked_fill,
    _aten.masked_fill.Tensor: _masked_fill,
    _aten.sort.default: _sort,
}
