"""Translations of special functions that torch.onnx lacks, or has with few digits for numbers far from 0.

Each is computed in double, in which nothing that cancels is seen in single, and so has single precision in its whole
range; in float64 lgamma and digamma alone have that of double.  Windows of a fixed size are constants.  Shifts of uint8
are here as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_bitwise_left_shift, aten_bitwise_right_shift

from ...errors import ExportError
from .size_arithmetic import DOUBLE, FLOAT, cast, constant, is_fraction, op, requested, typed

_SHIFT = 8
"""From this number on, series of 1 / x have the digits of a double."""
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_CENTRAL = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503),
    *(-0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613),
    *(0.00943887047, 1.00167406, 2.83297682),
)
"""M. Giles, Approximating the erfinv function (2010): erfinv(x) / x of log(1 - x^2), to 7 digits."""
_SCALED_TAIL = (
    *(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368),
    -1.26551223,
)
"""W. H. Press et al., Numerical Recipes: log(exp(x^2) erfc(x) / t) of t = 1 / (1 + x / 2), to 7 digits."""


def _number(value: float) -> Any:
    return constant(value, DOUBLE)


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """Of the highest power first."""
    total = _number(coefficients[0])
    for coefficient in coefficients[1:]:
        total = op.Add(op.Mul(total, x), _number(coefficient))
    return total


def _in_double(function: Callable[[Any], Any], *, doubles: bool = False) -> Callable[[Any], Any]:
    """A function of doubles for any type; `doubles` says that it has their digits."""

    def translated(x: Any) -> Any:
        kind: ir.DataType = x.dtype if is_fraction(x) else FLOAT
        if kind == DOUBLE and not doubles:
            raise ExportError(
                'this function has no translation to ONNX that is exact in float64; export with precision="float32"'
            )
        return cast(typed(function(cast(x, DOUBLE)), DOUBLE, x.shape), kind)

    return translated


def _log_gamma(x: Any) -> Any:
    """log|gamma(x)|: Stirling's series of |x| + 8, and the reflection of negative numbers."""
    size, one = op.Abs(x), _number(1.0)
    product = size
    for step in range(1, _SHIFT):
        product = op.Mul(product, op.Add(size, _number(float(step))))
    near = op.Less(size, _number(float(_SHIFT)))
    far = op.Where(near, op.Add(size, _number(float(_SHIFT))), size)
    square = op.Div(one, op.Mul(far, far))
    terms = [number / (2 * k * (2 * k - 1)) for k, number in enumerate(_BERNOULLI, 1)]
    series = op.Div(_polynomial(terms[::-1], square), far)
    # Not (x - 1/2) log(x) - x, which is inf - inf for the largest numbers.
    stirling = op.Mul(far, op.Sub(op.Log(far), one))
    stirling = op.Add(stirling, op.Sub(_number(math.log(2 * math.pi) / 2), op.Mul(_number(0.5), op.Log(far))))
    found = op.Add(stirling, series)
    found = op.Sub(found, op.Where(near, op.Log(op.Where(near, product, one)), _number(0.0)))
    rest = op.Sub(size, op.Floor(size))
    sine = op.Abs(op.Sin(op.Mul(rest, _number(math.pi))))
    reflected = op.Sub(op.Log(op.Div(_number(math.pi), op.Mul(size, sine))), found)
    whole = op.And(op.Equal(rest, _number(0.0)), op.LessOrEqual(x, _number(0.0)))
    found = op.Where(op.Less(x, _number(0.0)), reflected, found)
    return op.Where(op.Or(whole, op.Equal(size, _number(math.inf))), _number(math.inf), found)


def _digamma(x: Any) -> Any:
    """The derivative of log gamma: its series for |x| + 8, and the reflection of negative numbers."""
    one, zero = _number(1.0), _number(0.0)
    size = op.Abs(x)
    near = op.Less(size, _number(float(_SHIFT)))
    steps = op.Div(one, size)
    for step in range(1, _SHIFT):
        steps = op.Add(steps, op.Div(one, op.Add(size, _number(float(step)))))
    far = op.Where(near, op.Add(size, _number(float(_SHIFT))), size)
    inverse = op.Div(one, far)
    square = op.Mul(inverse, inverse)
    terms = [number / (2 * k) for k, number in enumerate(_BERNOULLI, 1)]
    series = op.Add(op.Mul(_number(0.5), inverse), op.Mul(square, _polynomial(terms[::-1], square)))
    found = op.Sub(op.Sub(op.Log(far), series), op.Where(near, steps, zero))
    # digamma(-x) = digamma(x) + 1 / x + pi / tan(pi x)
    rest = op.Sub(size, op.Floor(size))
    angle = op.Mul(rest, _number(math.pi))
    turned = op.Div(op.Mul(_number(math.pi), op.Cos(angle)), op.Sin(angle))
    reflected = op.Add(op.Add(found, op.Div(one, size)), turned)
    reflected = op.Where(op.Equal(rest, zero), _number(math.nan), reflected)
    found = op.Where(op.Less(x, zero), reflected, found)
    return op.Where(op.Equal(x, zero), op.Neg(op.Div(one, x)), found)


def _erf_inv(x: Any) -> Any:
    one, infinity = _number(1.0), _number(math.inf)
    depth = op.Neg(op.Log(op.Mul(op.Sub(one, x), op.Add(one, x))))
    central = op.Less(depth, _number(5.0))
    inner = _polynomial(_CENTRAL, op.Sub(depth, _number(2.5)))
    outer = _polynomial(_TAIL, op.Sub(op.Sqrt(depth), _number(3.0)))
    found = op.Mul(op.Where(central, inner, outer), x)
    return op.Where(op.Equal(op.Abs(x), one), op.Mul(infinity, x), found)


def _scaled_tail(x: Any) -> Any:
    """exp(x^2) erfc(x) of numbers that are not negative."""
    part = op.Div(_number(1.0), op.Add(_number(1.0), op.Mul(_number(0.5), x)))
    return op.Mul(part, op.Exp(_polynomial(_SCALED_TAIL, part)))


def _erfcx(x: Any) -> Any:
    found = _scaled_tail(op.Abs(x))
    reflected = op.Sub(op.Mul(_number(2.0), op.Exp(op.Mul(x, x))), found)
    return op.Where(op.Less(x, _number(0.0)), reflected, found)


def _erfc(x: Any) -> Any:
    found = op.Mul(_scaled_tail(op.Abs(x)), op.Exp(op.Neg(op.Mul(x, x))))
    return op.Where(op.Less(x, _number(0.0)), op.Sub(_number(2.0), found), found)


def _erfc_of_any(x: Any) -> Any:
    """In float64 1 - erf(x), which has double's digits where the result is not small."""
    if x.dtype == DOUBLE:
        return op.Sub(_number(1.0), op.Erf(x))
    return _in_double(_erfc)(x)


def _window(make: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    """A window of a fixed size."""

    def translated(window_length: Any, *options: Any, dtype: int | None = None, **_: Any) -> Any:
        if not isinstance(window_length, int):
            raise ExportError("a window as long as an axis has no translation to ONNX; give it a fixed length")
        kind = requested(dtype) or FLOAT
        window = make(window_length, *options, dtype=torch.float64).numpy()
        return constant(window.astype(kind.numpy()), kind)

    return translated


def _shift(direction: str, of_others: Callable[..., Any]) -> Callable[..., Any]:
    """A shift; torch.onnx takes uint8 for int8."""

    def shift(x: Any, by: Any) -> Any:
        number = constant(by, x.dtype) if isinstance(by, int) else cast(by, x.dtype)
        if x.dtype != ir.DataType.UINT8:
            return of_others(x, number)
        return typed(op.BitShift(x, number, direction=direction), x.dtype, x.shape)

    return shift


_aten, _prims = torch.ops.aten, torch.ops.prims
_SHIFTS = {
    "left": _shift("LEFT", aten_bitwise_left_shift),
    "right": _shift("RIGHT", aten_bitwise_right_shift),
}
SPECIAL_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    _prims.lgamma.default: _in_double(_log_gamma, doubles=True),
    _prims.digamma.default: _in_double(_digamma, doubles=True),
    _prims.erf_inv.default: _in_double(_erf_inv),
    _aten.erfc.default: _erfc_of_any,
    _aten.special_erfcx.default: _in_double(_erfcx),
    _prims.erfcx.default: _in_double(_erfcx),
    **{
        getattr(getattr(_aten, name), overload): _window(getattr(torch, name))
        for name in ("bartlett_window", "hamming_window", "kaiser_window")
        for overload in getattr(_aten, name).overloads()
        if not overload.endswith("out")
    },
    **{
        overload: shift
        for side, shift in _SHIFTS.items()
        for operator in (getattr(_aten, f"__{side[0]}shift__"), getattr(_aten, f"bitwise_{side}_shift"))
        for name in operator.overloads()
        if name in ("Tensor", "Scalar", "Tensor_Scalar") and (overload := getattr(operator, name))
    },
}
