"""Translations of functions for which torch.onnx's formula is only right in part of their range.

Its logsigmoid(-25) is -inf, its logaddexp(100, 0) inf, its log1p(1e-9) and expm1(1e-9) 0, its atan2(0, -1) -pi, its
1.0 // 0.1 is 10 where PyTorch's is 9, its clamp(min=0) of inf is 3.4e38, its logit(NaN, eps) and heaviside(NaN) are
numbers, its sign(NaN) is NaN and not 0, its (-inf) ** 0.5 is inf, whole numbers above 2^24 are divided as float32, and
their powers above 2^53 rounded.
Here each has PyTorch's accuracy in its whole range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_clamp, aten_logit, aten_pow

from .size_arithmetic import FLOAT, INT64, cast, constant, is_fraction, op, remainder, signs_differ, typed

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _log_sigmoid(x: Any) -> Any:
    """min(x, 0) - log(1 + exp(-|x|)), as PyTorch's kernel."""
    zero, one = constant(0.0, x.dtype), constant(1.0, x.dtype)
    return op.Sub(op.Min(x, zero), op.Log(op.Add(one, op.Exp(op.Neg(op.Abs(x))))))


def log_add_exp(a: Any, b: Any, base: float = math.e) -> Any:
    """The larger one + log(1 + base^-|a - b|); equal infinities have no difference."""
    kind: ir.DataType = a.dtype
    zero, one = constant(0.0, kind), constant(1.0, kind)
    distance = op.Where(op.Equal(a, b), zero, op.Abs(op.Sub(a, b)))
    scale = constant(math.log(base), kind)
    added = op.Log(op.Add(one, op.Exp(op.Neg(op.Mul(distance, scale)))))
    return op.Add(op.Max(a, b), op.Div(added, scale))


def _log1p(x: Any) -> Any:
    """log(u) * x / (u - 1) with u = 1 + x as it is rounded, which cancels that rounding; x where u is 1."""
    one, largest = constant(1.0, x.dtype), constant(float(np.finfo(x.dtype.numpy()).max), x.dtype)
    raised = op.Min(op.Add(one, x), largest)  # inf - 1 would give inf / inf
    change = op.Sub(raised, one)
    return op.Where(op.Equal(raised, one), x, op.Mul(op.Log(raised), op.Div(x, change)))


def _expm1(x: Any) -> Any:
    """tanh(x / 2) * (exp(x) + 1), in which nothing cancels."""
    half, one = constant(0.5, x.dtype), constant(1.0, x.dtype)
    return op.Mul(op.Tanh(op.Mul(x, half)), op.Add(op.Exp(x), one))


def _hypot(a: Any, b: Any) -> Any:
    """The larger one * sqrt(1 + (smaller / larger)^2): squares of the numbers themselves may overflow."""
    one, root, infinity = (constant(number, a.dtype) for number in (1.0, math.sqrt(2.0), math.inf))
    a, b = op.Abs(a), op.Abs(b)
    small, large = op.Min(a, b), op.Max(a, b)
    ratio = op.Div(small, large)
    # Equal ones may be zeros, which have no ratio; beside an infinity even NaN does not count.
    factor = op.Where(op.Equal(a, b), root, op.Sqrt(op.Add(one, op.Mul(ratio, ratio))))
    infinite = op.Or(op.Equal(a, infinity), op.Equal(b, infinity))
    return op.Where(infinite, infinity, op.Mul(large, factor))


def in_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Half precision computed in single, as PyTorch's kernels do."""

    def translated(*args: Any) -> Any:
        kind = args[0].dtype
        if kind not in _NARROW:
            return function(*args)
        # What is no value is the number of an axis.
        return cast(function(*(cast(item, FLOAT) if isinstance(item, ir.Value) else item for item in args)), kind)

    return translated


def _remainder(a: Any, b: Any) -> Any:
    """Of the divisor's sign."""
    a, b, kind = _operands(a, b)
    return _narrowed(remainder(a, b) if kind in _FLOATS else op.Mod(a, b), kind)


def _floor_divide(a: Any, b: Any) -> Any:
    """Rounded down, by way of the exact remainder."""
    a, b, kind = _operands(a, b)
    if kind not in _FLOATS:
        if not kind.is_signed():
            return _narrowed(op.Div(a, b), kind)
        rest = op.Mod(a, b)  # of the divisor's sign
        return _narrowed(op.Div(op.Sub(a, rest), b), kind)
    zero, half, one = (constant(number, a.dtype) for number in (0.0, 0.5, 1.0))
    rest = op.Mod(a, b, fmod=1)
    whole = op.Div(op.Sub(a, rest), b)
    whole = op.Where(signs_differ(rest, b), op.Sub(whole, one), whole)
    floor = op.Floor(whole)
    floor = op.Where(op.Greater(op.Sub(whole, floor), half), op.Add(floor, one), floor)
    quotient = op.Div(a, b)
    return _narrowed(op.Where(op.Equal(b, zero), quotient, floor), kind)


def _divide(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return _floor_divide(a, b)
    a, b, kind = _operands(a, b)
    if rounding_mode == "trunc":
        quotient = op.Div(a, b)
        truncated = op.Mul(op.Floor(op.Abs(quotient)), op.Sign(quotient)) if kind in _FLOATS else quotient
        return _narrowed(truncated, kind)
    return op.Div(a, b) if kind in _FLOATS else op.Div(cast(a, FLOAT), cast(b, FLOAT))


_FLOATS = (FLOAT, ir.DataType.DOUBLE, *_NARROW)


def _operands(a: Any, b: Any) -> tuple[Any, Any, ir.DataType]:
    """Both as values of a type that is computed with, and the type of the result.

    Half precision is computed in single, and small integers as int64: ONNX Runtime has not all operators for them.
    """
    kind = next(item.dtype for item in (a, b) if isinstance(item, ir.Value) and item.dtype is not None)
    for item in (a, b):  # a number of Python's, a size, or a tensor without axes
        if is_fraction(item) and kind not in _FLOATS:
            kind = FLOAT
    wide = FLOAT if kind in _NARROW else kind if kind in _FLOATS else INT64
    return _as(a, wide), _as(b, wide), kind


def _as(item: Any, kind: ir.DataType) -> Any:
    if not isinstance(item, ir.Value):
        return constant(float(item) if kind in _FLOATS else int(item), kind)
    return cast(item, kind)


def _narrowed(value: Any, kind: ir.DataType) -> Any:
    return cast(value, kind) if kind in _NARROW or kind not in (*_FLOATS, INT64) else value


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


def _sign(x: Any) -> Any:
    return op.Where(op.IsNaN(x), constant(0.0, x.dtype), op.Sign(x)) if is_fraction(x) else op.Sign(x)


def _sign_bit(x: Any) -> Any:
    """Whether a number has a minus sign, as -0 has; torch.onnx's does not see that one."""
    return _negative(x, *(constant(number, x.dtype) for number in (0.0, 1.0))) if is_fraction(x) else op.Less(x, 0)


def _numbers_first(compute: Callable[..., Any]) -> Callable[..., Any]:
    """fmax or fmin: of a number and NaN, the number."""

    def translated(a: Any, b: Any) -> Any:
        return op.Where(op.IsNaN(a), b, op.Where(op.IsNaN(b), a, compute(a, b))) if is_fraction(a) else compute(a, b)

    return translated


def _clamp(x: Any, least: Any = None, largest: Any = None) -> Any:
    """Clip with one limit alone has the largest finite number as the other one, which infinity would become."""
    if not is_fraction(x) or (least is None) == (largest is None):
        return aten_clamp(x, least, largest)
    return op.Min(x, _like(largest, x)) if least is None else op.Max(x, _like(least, x))


def _logit(x: Any, eps: float | None = None) -> Any:
    if eps is None:
        return aten_logit(x)
    least, largest, one = (constant(number, x.dtype) for number in (eps, 1 - eps, 1.0))
    share = op.Min(op.Max(x, least), largest)
    return op.Log(op.Div(share, op.Sub(one, share)))


def _heaviside(x: Any, at_zero: Any) -> Any:
    above = op.CastLike(op.Greater(x, _like(0, x)), x)
    return op.Where(op.Equal(x, _like(0, x)), at_zero, above)


def _power(x: Any, exponent: float) -> Any:
    """Powers as PyTorch computes them.

    Of whole numbers as products, which lose their upper bits as PyTorch's do, where ONNX Runtime's are rounded; and
    powers of a half as roots, which are NaN for -inf and -0 for -0.
    """
    if is_fraction(exponent) and not is_fraction(x):
        x = cast(x, FLOAT)
    if is_fraction(x) and isinstance(exponent, float) and abs(exponent) == 0.5:
        return op.Sqrt(x) if exponent > 0 else op.Reciprocal(op.Sqrt(x))
    if is_fraction(x) and isinstance(exponent, (int, float)):
        return op.Pow(x, constant(exponent, x.dtype))
    if is_fraction(x) or x.dtype == ir.DataType.BOOL or not isinstance(exponent, int) or exponent < 1:
        return aten_pow(x, exponent)
    kind: ir.DataType = x.dtype
    power, square = None, x
    while exponent:
        if exponent % 2:
            power = square if power is None else typed(op.Mul(power, square), kind, x.shape)
        exponent //= 2
        if exponent:
            square = typed(op.Mul(square, square), kind, x.shape)
    return op.Identity(power) if power is x else power


def _like(number: Any, x: Any) -> Any:
    return op.CastLike(number, x) if isinstance(number, ir.Value) else constant(float(number), x.dtype)


_aten = torch.ops.aten
WIDE_RANGE: Mapping[Any, Callable[..., Any]] = {
    _aten.log_sigmoid.default: _log_sigmoid,
    _aten.log_sigmoid_forward.default: lambda x: (_log_sigmoid(x), x),
    _aten.logaddexp.default: log_add_exp,
    _aten.logaddexp2.default: lambda a, b: log_add_exp(a, b, base=2.0),
    _aten.log1p.default: in_single(_log1p),
    _aten.expm1.default: in_single(_expm1),
    torch.ops.prims.hypot.default: in_single(_hypot),
    _aten.remainder.Tensor: _remainder,
    _aten.remainder.Scalar: _remainder,
    _aten.remainder.Scalar_Tensor: _remainder,
    _aten.floor_divide.default: _floor_divide,
    _aten.floor_divide.Scalar: _floor_divide,
    _aten.div.Tensor_mode: _divide,
    _aten.div.Scalar_mode: _divide,
    _aten.atan2.default: _atan2,
    _aten.sign.default: _sign,
    _aten.signbit.default: _sign_bit,
    _aten.pow.Tensor_Scalar: _power,
    torch.ops.prims.signbit.default: _sign_bit,
    _aten.clamp.default: _clamp,
    _aten.clamp_min.default: _clamp,
    _aten.clamp_max.default: lambda x, largest: _clamp(x, None, largest),
    # Also of a Python integer for a tensor of floats.
    _aten.clamp_min.Tensor: lambda x, least: op.Max(x, _like(least, x)),
    _aten.clamp_max.Tensor: lambda x, largest: op.Min(x, _like(largest, x)),
    _aten.logit.default: _logit,
    _aten.heaviside.default: _heaviside,
    torch.ops.prims.fmax.default: _numbers_first(op.Max),
    torch.ops.prims.fmin.default: _numbers_first(op.Min),
}
