"""Translations of choices by a mask, ``torch.where`` and ``masked_fill``, of any type, and of sums of masks.

ONNX Runtime's CPU provider has no Where of booleans or of 16 bit integers, and no Add of booleans.  A choice
between two masks is logic, and so is their sum; one between other whole numbers goes by way of int64, which holds all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_add

from .size_arithmetic import INT64, cast, constant, op

_BOOL = ir.DataType.BOOL
_WIDENED = (ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.UINT32)


def where(mask: Any, chosen: Any, other: Any) -> Any:
    """`chosen` where the mask is true, else `other`: two values of one type, or Python's numbers."""
    values = [item for item in (chosen, other) if isinstance(item, ir.Value)]
    if _are_boolean(chosen, other):
        return op.Or(op.And(mask, _as_boolean(chosen)), op.And(op.Not(mask), _as_boolean(other)))
    if len(values) == 2 and chosen.dtype == other.dtype and chosen.dtype in _WIDENED:
        return cast(op.Where(mask, cast(chosen, INT64), cast(other, INT64)), chosen.dtype)
    return op.Where(mask, chosen, other)


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


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    if not isinstance(value, ir.Value):
        value = constant(value, x.dtype)
    elif value.dtype != x.dtype:
        value = cast(value, x.dtype)
    return where(mask, value, x)


def _masked_select(x: Any, mask: Any) -> Any:
    """The entries where the mask is true, both broadcast, as one axis."""
    flat = constant([-1], INT64)
    entries, chosen = op.Expand(x, op.Shape(mask)), op.Expand(mask, op.Shape(x))
    return op.Compress(op.Reshape(entries, flat), op.Reshape(chosen, flat))


def _add(one: Any, other: Any, alpha: float = 1.0) -> Any:
    if not _are_boolean(one, other):
        return aten_add(one, other, alpha)
    return op.Or(_as_boolean(one), _as_boolean(other)) if alpha else op.Identity(one)


_aten = torch.ops.aten
SELECTIONS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((_aten.where.self, _aten.where.Scalar, _aten.where.ScalarSelf, _aten.where.ScalarOther), where),
    _aten.masked_fill.Scalar: _masked_fill,
    _aten.masked_fill.Tensor: _masked_fill,
    _aten.masked_select.default: _masked_select,
    _aten.add.Tensor: _add,
}
