"""Translations of what Python computes with sizes, in double precision like Python's.

``math.floor(x.size(1) * 0.7)`` is a number of torch.SymFloat's arithmetic in a traced program.  torch.onnx
computes that in float32, where 0.7 * 90 is 63 and not 62.99999999999999, so that a size is another at some
lengths.  Here it is computed in double; whole numbers stay int64.  Other operators see a float32 scalar, a
Cast of the double, and the next scalar operator goes on from the double.
"""

from __future__ import annotations

import builtins
import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

from ...errors import ExportError
from ..copies.caller_state import replaced

op: Any = onnxscript.opset18
DOUBLE, FLOAT, INT64 = ir.DataType.DOUBLE, ir.DataType.FLOAT, ir.DataType.INT64
_INT64 = torch.iinfo(torch.int64)
_DOUBLE_OF = "lstm_onnx.double_of"
"""Under which a float32 scalar knows the double that it was cast from, and its Cast that it is such a one."""
_FRACTIONS = (FLOAT, DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_NOT_NEGATIVE = ("Shape", "Size", "Range")
_PASSED_ON = ("Squeeze", "Unsqueeze", "Gather", "Reshape", "Identity", "Cast", "ReduceMax", "ReduceMin", "Slice")
_COMBINED = ("Add", "Mul", "Div", "Max", "Min", "Concat")


def is_fraction(scalar: Any) -> bool:
    """Whether a scalar of Python's is a float."""
    return scalar.dtype in _FRACTIONS if isinstance(scalar, ir.Value) else isinstance(scalar, float)


def constant(number: Any, dtype: ir.DataType) -> Any:
    """An initializer."""
    value = op.Constant(value=ir.tensor(number, dtype=dtype))
    value.dtype = dtype
    return value


def typed(value: Any, dtype: ir.DataType, shape: Any) -> Any:
    """A value with its type and shape, which other translations ask for."""
    value.dtype, value.shape = dtype, None if shape is None else ir.Shape(shape)
    return value


def cast(value: Any, dtype: ir.DataType) -> Any:
    """A value as this type, which it may be already."""
    if value.dtype == dtype:
        return value
    return typed(op.Cast(value, to=dtype), dtype, value.shape)


def requested(dtype: int | None) -> ir.DataType | None:
    """The type that an operator's argument `dtype` asks for; torch writes -1 or None for none."""
    return None if dtype in (None, -1) else ir.DataType(dtype)


def along_axis(translate: Callable[..., Any]) -> Callable[..., Any]:
    """A translation of what goes along an axis, which is counted from the start, and gives numbers and their places.

    A number without axes is its own, at place 0.
    """

    def translated(x: Any, dim: int = -1, *args: Any, **kwargs: Any) -> Any:
        if len(x.shape) == 0:
            return op.Identity(x), constant(0, INT64)
        return translate(x, dim % len(x.shape), *args, **kwargs)

    return translated


def as_double(scalar: Any) -> Any:
    """A scalar, a size or a Python number, as the double that Python computes with.

    Raises:
        ExportError: it is a float that came into a branch of torch.cond from outside.
    """
    if not isinstance(scalar, ir.Value):
        return constant(float(scalar), DOUBLE)
    held = scalar.meta.get(_DOUBLE_OF)
    if held is not None:
        return held
    if is_fraction(scalar) and scalar.producer() is None:
        raise ExportError(
            "torch.cond gets a float that was computed from a size, and a branch uses it; compute it within the branch"
        )
    return cast(scalar, DOUBLE)


def as_integer(scalar: Any) -> Any:
    """A scalar that is an integer, as int64."""
    return scalar if isinstance(scalar, ir.Value) else constant(int(scalar), INT64)


def as_float(double: Any) -> Any:
    """A double as other operators see it: as a float32."""
    double.dtype = DOUBLE
    value = cast(double, FLOAT)
    value.meta[_DOUBLE_OF] = double
    value.producer().metadata_props[_DOUBLE_OF] = "1"
    return value


def _binary(of_integers: Callable[..., Any], of_doubles: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """An operator of two numbers; `of_doubles` is used for doubles if it differs."""

    def translated(a: Any, b: Any) -> Any:
        if is_fraction(a) or is_fraction(b):
            return as_float((of_doubles or of_integers)(as_double(a), as_double(b)))
        return of_integers(as_integer(a), as_integer(b))

    return translated


def _unary(compute: Callable[..., Any]) -> Callable[..., Any]:
    def translated(a: Any) -> Any:
        return as_float(compute(as_double(a))) if is_fraction(a) else compute(as_integer(a))

    return translated


def _comparison(compare: Callable[..., Any]) -> Callable[..., Any]:
    def translated(a: Any, b: Any) -> Any:
        if is_fraction(a) or is_fraction(b):
            return compare(as_double(a), as_double(b))
        if any(isinstance(item, ir.Value) and item.dtype == ir.DataType.BOOL for item in (a, b)):
            return compare(a, b)
        return compare(*(item if isinstance(item, ir.Value) else _within_int64(item) for item in (a, b)))

    return translated


def _within_int64(number: Any) -> Any:
    """A number to compare sizes with; torch compares multiples of one with those of the largest that there is."""
    return as_integer(min(max(int(number), _INT64.min), _INT64.max))


def _integer_division(a: Any, b: Any) -> Any:
    """Rounded down, as Python's; ONNX's is rounded towards zero."""
    if _never_negative(a) and _never_negative(b):
        return op.Div(a, b)
    rest = op.Mod(a, b)  # of the divisor's sign
    return op.Div(op.Sub(a, rest), b)


def _power_of_two(exponent: Any) -> Any:
    return op.Pow(constant(2, INT64), as_integer(exponent))


def _never_negative(value: Any) -> bool:
    node = value.producer() if isinstance(value, ir.Value) else None
    if node is None:
        return False
    if node.op_type == "Constant":
        stored = node.attributes.get("value")
        return stored is not None and bool((stored.as_tensor().numpy() >= 0).all())
    if node.op_type in _PASSED_ON:
        return _never_negative(node.inputs[0])
    if node.op_type in _COMBINED:
        return all(map(_never_negative, node.inputs))
    return node.op_type in _NOT_NEGATIVE


def remainder(a: Any, b: Any) -> Any:
    """The remainder of floats with the divisor's sign, as Python's.

    fmod is exact; a - floor(a / b) * b is off by a whole b where a / b is rounded up.
    """
    rest = op.Mod(a, b, fmod=1)
    return op.Where(signs_differ(rest, b), op.Add(rest, b), rest)


def signs_differ(rest: Any, divisor: Any) -> Any:
    """Whether a remainder that is not 0 has the other sign than the divisor."""
    return op.Less(op.Mul(op.Sign(rest), op.Sign(divisor)), constant(0.0, divisor.dtype))


def _rounded(rounding: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A double rounded to an integer; None rounds towards zero."""

    def translated(a: Any) -> Any:
        if not is_fraction(a):
            return as_integer(a)
        double = as_double(a)
        return cast(double if rounding is None else rounding(double), INT64)

    return translated


def _round(a: Any, digits: Any = None) -> Any:
    if digits is not None:
        raise ExportError("round(x, digits) of a size has no form in ONNX; round to an integer, or compute otherwise")
    return _rounded(op.Round)(a)  # halves to the even number, as Python's


def _item(x: Any) -> Any:
    """A tensor's number as a Python number: a double of a float64 tensor, which torch.onnx rounds to float32."""
    first = op.Gather(op.Reshape(x, constant([-1], INT64)), constant(0, INT64))
    if x.dtype == DOUBLE:
        return as_float(first)
    return cast(first, FLOAT if is_fraction(x) else x.dtype if x.dtype == ir.DataType.BOOL else INT64)


SCALARS: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten._local_scalar_dense.default: _item,
    torch.sym_float: lambda a: a if is_fraction(a) else as_float(as_double(a)),
    torch.sym_int: _rounded(),
    torch.sym_max: _binary(op.Max),
    torch.sym_min: _binary(op.Min),
    torch.sym_ite: lambda condition, one, other: _binary(lambda a, b: op.Where(condition, a, b))(one, other),
    getattr(torch, "_sym_sqrt"): lambda a: as_float(op.Sqrt(as_double(a))),  # noqa: B009 - unknown to mypy
    operator.add: _binary(op.Add),
    operator.sub: _binary(op.Sub),
    operator.mul: _binary(op.Mul),
    operator.truediv: lambda a, b: as_float(op.Div(as_double(a), as_double(b))),
    operator.floordiv: _binary(_integer_division, lambda a, b: op.Floor(op.Div(a, b))),
    operator.mod: _binary(op.Mod, remainder),
    operator.pow: _binary(op.Pow),
    operator.lshift: lambda a, b: op.Mul(as_integer(a), _power_of_two(b)),
    operator.rshift: lambda a, b: _integer_division(as_integer(a), _power_of_two(b)),
    operator.neg: _unary(op.Neg),
    operator.pos: lambda a: a,
    operator.abs: _unary(op.Abs),
    operator.lt: _comparison(op.Less),
    operator.le: _comparison(op.LessOrEqual),
    operator.gt: _comparison(op.Greater),
    operator.ge: _comparison(op.GreaterOrEqual),
    operator.eq: _comparison(op.Equal),
    operator.ne: lambda a, b: op.Not(_comparison(op.Equal)(a, b)),
    math.floor: _rounded(op.Floor),
    math.ceil: _rounded(op.Ceil),
    math.trunc: _rounded(),
    builtins.round: _round,
}
"""By what a traced program calls: the translation of it."""


def _range(start: Any, end: Any, step: Any, dtype: int | None = None, **_: Any) -> Any:
    """torch.arange: the count and each number in double, as in torch's CPU kernel, then cast to the dtype."""
    fractional = any(map(is_fraction, (start, end, step)))
    given = requested(dtype)
    if not fractional:
        counted = op.Range(as_integer(start), as_integer(end), as_integer(step))
        return counted if given in (None, INT64) else cast(counted, given)
    kind = given or (DOUBLE if torch.get_default_dtype() == torch.float64 else FLOAT)
    first, last, delta = as_double(start), as_double(end), as_double(step)
    if kind == INT64:  # only for this type torch rounds the bounds themselves
        return op.Range(*(cast(bound, INT64) for bound in (first, last, delta)))
    count = cast(op.Ceil(op.Div(op.Sub(last, first), delta)), INT64)
    index = op.Range(constant(0, INT64), count, constant(1, INT64))
    if kind in _FRACTIONS:
        return cast(op.Add(first, op.Mul(cast(index, DOUBLE), delta)), kind)
    if is_fraction(step):
        raise ExportError(
            "torch.arange of integers by a fractional step has no form in ONNX; take a whole step, or .to() a "
            "floating range"
        )
    return cast(op.Add(cast(first, INT64), op.Mul(index, as_integer(step))), kind)


RANGES: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.arange.default: lambda end, **options: _range(0, end, 1, **options),
    torch.ops.aten.arange.start: lambda start, end, **options: _range(start, end, 1, **options),
    torch.ops.aten.arange.start_step: lambda start, end, step=1, **options: _range(start, end, step, **options),
}


@contextlib.contextmanager
def exact_floor_division() -> Iterator[None]:
    """Trace ``a // b`` of floats as Python computes it: 1.0 // 0.1 is 9.0, and floor(1.0 / 0.1), torch's trace, 10."""
    with contextlib.ExitStack() as stack:
        for kind in (torch.SymInt, torch.SymFloat):
            for name, swapped in (("__floordiv__", False), ("__rfloordiv__", True)):
                division = _floor_divided(getattr(kind, name), swapped=swapped)
                stack.enter_context(replaced(kind, name, division))
        yield


def _floor_divided(own: Callable[..., Any], *, swapped: bool) -> Callable[..., Any]:
    to_float: Any = torch.sym_float

    def divided(size: Any, other: Any) -> Any:
        a, b = (other, size) if swapped else (size, other)
        exact = isinstance(b, float) and math.frexp(b)[0] == 0.5  # a division by a power of two is not rounded
        if exact or not any(isinstance(item, (float, torch.SymFloat)) for item in (a, b)):
            return own(size, other)
        a, b = to_float(a), to_float(b)
        return to_float(round((a - a % b) / b))

    return divided


def keep_doubles(model: ir.Model) -> None:
    """Where a Python double is cast to float32 and back to double, take the double itself."""
    for node in model.graph.all_nodes():
        if node.op_type not in ("Cast", "CastLike") or node.inputs[0] is None:
            continue
        before = node.inputs[0].producer()
        if before is None or _DOUBLE_OF not in before.metadata_props or before.op_type != "Cast":
            continue
        if node.op_type == "Cast":
            wide = node.attributes["to"].value == DOUBLE
        else:
            wide = node.inputs[1] is not None and node.inputs[1].dtype == DOUBLE
        if wide:
            node.replace_input_with(0, before.inputs[0])
