"""Translations of interpolation that take the entries that PyTorch takes.

ONNX's Resize rounds positions in its input differently from PyTorch (at some lengths, nearest neighbours are others),
computes sizes from factors in float32, and cannot be given both a size and a factor.  Where that could matter, entries
are gathered here at positions that are computed as in PyTorch's CPU kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.nn import aten__upsample_bicubic2d_aa, aten__upsample_bilinear2d_aa

from ...errors import ExportError
from .size_arithmetic import DOUBLE, FLOAT, INT64, as_double, cast, constant, op

_CUBIC = -0.75
"""torch's coefficient of cubic convolution."""
_EXACT = 2.0**-25
"""If the error of ``1 / factor`` is below this, its product with a multiple of the factor is never rounded down."""


@dataclass(frozen=True)
class _Axis:
    """An axis to interpolate: its place, its sizes before and after as int64 scalars, and the factor that was given."""

    place: int
    before: Any
    after: Any
    factor: Any


def _axes(x: Any, sizes: Any, factors: Sequence[Any] | None) -> list[_Axis]:
    """The axes that change, without those whose factor is 1 or whose size stays."""
    rank = len(x.shape)
    found = []
    for index, place in enumerate(range(2, rank)):
        own: Any = x.shape[place]
        factor: Any = factors[index] if factors is not None else None
        before = op.Squeeze(op.Shape(x, start=place, end=place + 1))
        if sizes is not None:
            size = sizes[index]
            after = size if isinstance(size, ir.Value) else constant(int(size), INT64)
        elif factor == 1:
            continue
        else:
            known = isinstance(own, int) and isinstance(factor, (int, float))
            size = int(own * factor) if known else None
            wanted = op.Mul(cast(before, DOUBLE), as_double(factor))
            after = constant(size, INT64) if size is not None else cast(wanted, INT64)
        if isinstance(own, int) and isinstance(size, int) and own == size and factor in (None, 1):
            continue
        found.append(_Axis(place, before, after, factor))
    return found


def _scale(axis: _Axis, dtype: ir.DataType, *, same_kept: bool) -> Any:
    """The distance in the input between neighbours of the output; with `same_kept`, 1 where both sizes are equal."""
    ratio = op.Div(cast(axis.before, dtype), cast(axis.after, dtype))
    if axis.factor is None:
        return ratio
    if isinstance(axis.factor, ir.Value):
        inverse = cast(op.Div(constant(1.0, DOUBLE), as_double(axis.factor)), dtype)
    else:
        inverse = constant(1.0 / float(axis.factor), dtype)
    if not same_kept:
        return inverse
    return op.Where(op.Equal(axis.before, axis.after), constant(1.0, dtype), inverse)


def _counted(axis: _Axis, dtype: ir.DataType) -> Any:
    return cast(op.Range(constant(0, INT64), axis.after, constant(1, INT64)), dtype)


def _below_end(index: Any, axis: _Axis) -> Any:
    return op.Min(index, op.Sub(axis.before, constant(1, INT64)))


def _computed_in(x: Any) -> ir.DataType:
    return DOUBLE if x.dtype == DOUBLE else FLOAT


def _nearest_places(x: Any, axis: _Axis, *, exact: bool) -> Any:
    """The positions of nearest neighbours, as in PyTorch's kernels.

    Of two spatial axes the scale is float32 even for doubles, and an axis that stays is copied.  Whatever the
    type of the product, it is rounded to float32 before it is rounded down.
    """
    plane = len(x.shape) == 4
    wide = _computed_in(x)
    scale = _scale(axis, FLOAT if plane else wide, same_kept=plane and not exact)
    product = FLOAT if plane and not exact else wide
    index = _counted(axis, product)
    if exact:
        index = op.Add(index, constant(0.5, product))
    place = op.Mul(index, op.Cast(scale, to=product))
    return _below_end(cast(op.Floor(cast(place, FLOAT)), INT64), axis)


def _nearest(x: Any, sizes: Any, factors: Sequence[Any] | None, *, exact: bool) -> Any:
    if not exact and factors is not None and all(map(_integer_factor, factors)):
        scales = constant([1.0, 1.0, *map(float, factors)], FLOAT)
        return op.Resize(
            x, None, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
        )
    result = x
    for axis in _axes(x, sizes, factors):
        result = _gathered(x, result, axis, [(_nearest_places(x, axis, exact=exact), None)])
    return op.Identity(x) if result is x else result


def _integer_factor(factor: Any) -> bool:
    """Whether each entry is repeated an equal, whole number of times, by Resize's arithmetic and by PyTorch's."""
    if isinstance(factor, ir.Value) or factor != int(factor) or factor < 1:
        return False
    return bool(1.0 - float(factor) * float(np.float32(1.0 / factor)) < _EXACT)


def _power_of_two(factor: Any) -> bool:
    """Whether the factor is a power of two, where Resize's arithmetic gives what PyTorch's does."""
    return not isinstance(factor, ir.Value) and factor >= 1 and math.frexp(factor)[0] == 0.5


def _corner_scale(axis: _Axis, dtype: ir.DataType) -> Any:
    """The scale if the first and last entries stay first and last."""
    one = constant(1, INT64)
    gaps = cast(op.Max(op.Sub(axis.after, one), one), dtype)
    return op.Div(cast(op.Sub(axis.before, one), dtype), gaps)


def _places(x: Any, axis: _Axis, *, corners: bool, clamped: bool) -> Any:
    """The position in the input of each entry of the output."""
    dtype = _computed_in(x)
    index = _counted(axis, dtype)
    if corners:
        return op.Mul(index, _corner_scale(axis, dtype))
    # In double until the end, as compiled code uses a fused multiply-add.
    half = constant(0.5, DOUBLE)
    scale = cast(_scale(axis, dtype, same_kept=clamped), DOUBLE)
    place = cast(op.Sub(op.Mul(op.Add(cast(index, DOUBLE), half), scale), half), dtype)
    return op.Max(place, constant(0.0, dtype)) if clamped else place


def _gathered(x: Any, result: Any, axis: _Axis, parts: Sequence[tuple[Any, Any]]) -> Any:
    """The entries at some positions along an axis, or weighted sums of several."""
    rank = len(x.shape)
    order = list(range(rank))
    place = axis.place
    if place == rank - 1:
        # Along the last axis ONNX Runtime's Gather copies entry by entry, and takes twenty times as long.
        order[1], order[place], place = place, 1, 1
        result = op.Transpose(result, perm=order)
    shape = constant([-1] + [1] * (rank - 1 - place), INT64)
    total = None
    for index, weight in parts:
        part = op.Gather(result, index, axis=place)
        if weight is not None:
            part = op.Mul(part, op.Reshape(op.Cast(weight, to=x.dtype), shape))
        total = part if total is None else op.Add(total, part)
    return total if place == axis.place else op.Transpose(total, perm=order)


def _linear_parts(place: Any, axis: _Axis, dtype: ir.DataType) -> list[tuple[Any, Any]]:
    first = _below_end(cast(place, INT64), axis)
    second = _below_end(op.Add(first, constant(1, INT64)), axis)
    one = constant(1.0, dtype)
    share = op.Min(op.Sub(place, cast(first, dtype)), one)
    return [(first, op.Sub(one, share)), (second, share)]


def _cubic_parts(place: Any, axis: _Axis, dtype: ir.DataType) -> list[tuple[Any, Any]]:
    """The four entries around each position with their weights, by Keys' cubic convolution."""

    def number(value: float) -> Any:
        return constant(value, dtype)

    def near(t: Any) -> Any:  # ((a + 2) t - (a + 3)) t^2 + 1
        inner = op.Sub(op.Mul(number(_CUBIC + 2), t), number(_CUBIC + 3))
        return op.Add(op.Mul(op.Mul(inner, t), t), number(1))

    def far(t: Any) -> Any:  # ((a t - 5a) t + 8a) t - 4a
        inner = op.Sub(op.Mul(number(_CUBIC), t), number(5 * _CUBIC))
        return op.Sub(op.Mul(op.Add(op.Mul(inner, t), number(8 * _CUBIC)), t), number(4 * _CUBIC))

    low = op.Floor(place)
    share = op.Sub(place, low)
    rest = op.Sub(number(1), share)
    weights = [far(op.Add(share, number(1))), near(share), near(rest), far(op.Add(rest, number(1)))]
    first = cast(low, INT64)
    zero = constant(0, INT64)
    indices = [op.Max(_below_end(op.Add(first, constant(step, INT64)), axis), zero) for step in (-1, 0, 1, 2)]
    return list(zip(indices, weights, strict=True))


def _continuous(x: Any, sizes: Any, corners: bool, factors: Sequence[Any] | None, *, cubic: bool) -> Any:
    """Linear or cubic interpolation along each axis."""
    if not cubic and not corners and factors is not None and all(map(_power_of_two, factors)):
        # Of three axes Resize takes neighbours along all, with a weight of 0, so that a NaN would reach other rows.
        row = len(x.shape) == 3
        scales = constant([1.0] * (3 if row else 2) + [*map(float, factors)], FLOAT)
        plane = op.Unsqueeze(x, constant([2], INT64)) if row else x
        found = op.Resize(plane, None, scales, mode="linear", coordinate_transformation_mode="half_pixel")
        return op.Squeeze(found, constant([2], INT64)) if row else found
    dtype = _computed_in(x)
    result = x
    for axis in _axes(x, sizes, factors):
        place = _places(x, axis, corners=corners, clamped=not cubic)
        parts = (_cubic_parts if cubic else _linear_parts)(place, axis, dtype)
        result = _gathered(x, result, axis, parts)
    return op.Identity(x) if result is x else result


def _given(scales: Sequence[Any]) -> Sequence[Any] | None:
    return None if all(scale is None for scale in scales) else scales


def _nearest_by(exact: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def by_vector(x: Any, output_size: Any = None, scale_factors: Any = None) -> Any:
        return _nearest(x, output_size, scale_factors, exact=exact)

    def by_size(x: Any, output_size: Any, *scales: Any, **named: Any) -> Any:
        return _nearest(x, output_size, _given([*scales, *named.values()]), exact=exact)

    return by_vector, by_size


def _continuous_by(cubic: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def by_vector(x: Any, output_size: Any, align_corners: bool, scale_factors: Any = None) -> Any:
        return _continuous(x, output_size, align_corners, scale_factors, cubic=cubic)

    def by_size(x: Any, output_size: Any, align_corners: bool, *scales: Any, **named: Any) -> Any:
        return _continuous(x, output_size, align_corners, _given([*scales, *named.values()]), cubic=cubic)

    return by_vector, by_size


def _antialiased(translate: Callable[..., Any]) -> Callable[..., Any]:
    """With `antialias`: ONNX Runtime takes the ratio of the sizes, whatever the factor and the corners."""

    def by_size(x: Any, output_size: Any, align_corners: bool, *scales: Any, **named: Any) -> Any:
        factors = _given([*scales, *named.values()]) or ()
        # Of a size that may change, 1.
        before = [size if isinstance(size, int) else 1 for size in x.shape[2:]]
        if align_corners or any((size * factor) % 1 for size, factor in zip(before, factors, strict=False)):
            raise ExportError(
                "interpolate with antialias=True has no translation to ONNX for align_corners=True, nor for this "
                "scale_factor; leave out align_corners, and give the size or recompute_scale_factor=True"
            )
        return translate(x, output_size, align_corners, None, None)

    return by_size


def _table() -> dict[Any, Callable[..., Any]]:
    kinds = {
        **{f"upsample_nearest{n}d": _nearest_by(exact=False) for n in (1, 2, 3)},
        **{f"_upsample_nearest_exact{n}d": _nearest_by(exact=True) for n in (1, 2, 3)},
        "upsample_linear1d": _continuous_by(cubic=False),
        "upsample_bilinear2d": _continuous_by(cubic=False),
        "upsample_trilinear3d": _continuous_by(cubic=False),
        "upsample_bicubic2d": _continuous_by(cubic=True),
    }
    found: dict[Any, Callable[..., Any]] = {
        torch.ops.aten._upsample_bilinear2d_aa.default: _antialiased(aten__upsample_bilinear2d_aa),
        torch.ops.aten._upsample_bicubic2d_aa.default: _antialiased(aten__upsample_bicubic2d_aa),
    }
    for name, (by_vector, by_size) in kinds.items():
        packet = getattr(torch.ops.aten, name)
        found[packet.vec], found[packet.default] = by_vector, by_size
    return found


INTERPOLATIONS: Mapping[Any, Callable[..., Any]] = _table()
"""The translations, by the operators of a traced program."""
