"""The translation of atan2, with the signs of zeros and the infinities that PyTorch distinguishes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from .size_arithmetic import FLOAT, cast, constant, is_fraction, op


def _negative(value: Any, zero: Any, one: Any) -> Any:
    """Whether a number has a minus sign, as -0 has."""
    return op.Less(op.Where(op.Equal(value, zero), op.Div(one, value), value), zero)


def _atan2(y: Any, x: Any) -> Any:
    """torch.onnx's gives -pi for (0, -1), and 0 for NaN."""
    y, x = (value if is_fraction(value) else cast(value, FLOAT) for value in (y, x))
    kind: ir.DataType = x.dtype
    zero, one, infinity = (constant(number, kind) for number in (0.0, 1.0, math.inf))
    pi, minus_pi = constant(math.pi, kind), constant(-math.pi, kind)
    zeros = op.And(op.Equal(x, zero), op.Equal(y, zero))
    infinities = op.And(op.Equal(op.Abs(x), infinity), op.Equal(op.Abs(y), infinity))
    slope = op.Where(infinities, op.Mul(op.Sign(y), op.Sign(x)), op.Div(y, x))
    angle = op.Where(zeros, y, op.Atan(slope))
    # To the left of the origin the slope is that of the opposite direction.
    turn = op.Where(_negative(y, zero, one), minus_pi, pi)
    turned = op.Where(zeros, turn, op.Add(angle, turn))
    return op.Where(_negative(x, zero, one), turned, angle)


ANGLES: Mapping[Any, Callable[..., Any]] = {torch.ops.aten.atan2.default: _atan2}
