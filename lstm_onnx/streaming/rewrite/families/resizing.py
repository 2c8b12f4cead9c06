"""Resize by whole factors: each step is repeated, or steps between two are interpolated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...size import Size
from ..counts import Stage
from ..facts import Fact, RefusedError, Stream
from ..rewriter import Call, Rewriter, family
from ..stages import guarded, mirror, require_plain, window


@family("Resize")
def resize(p: Rewriter, call: Call) -> list[Fact]:
    """Nearest or linear along time; other axes in any way that does not move time."""
    f = call.fact(0)
    if not isinstance(f, Stream):
        return p.plain(call)
    factors = _factors(call, f)
    mode = bytes(call.attributes.get("mode", b"nearest")).decode()
    by = factors[f.axis]
    coordinates = bytes(call.attributes.get("coordinate_transformation_mode", b"half_pixel")).decode()
    if mode == "linear":
        return [_interpolated(p, call, f, factors, coordinates)]
    if mode != "nearest":
        raise RefusedError(f"interpolates between steps ({mode})", 'mode="nearest" or "linear"')
    nearest = bytes(call.attributes.get("nearest_mode", b"round_prefer_floor")).decode()
    if not all(_repeats(factor, coordinates, nearest) for factor in factors):
        raise RefusedError(f"takes steps by {coordinates} and {nearest}, which does not repeat each {by} times")
    if by != 1:
        require_plain(f)
    scales = p.graph.constant(np.array(factors, np.float32), "scales")
    x = p.graph.add(
        "Resize",
        p.name(call.node.input[0]),
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    count = p.count(Stage(f.count, by))
    if by != 1:
        x = guarded(p, x, f.axis, count)
    p.emitted(call, x)
    shape = tuple(size * Size.of(factor) for size, factor in zip(f.shape, factors, strict=True))
    return [replace(f, shape=shape, count=count)]


def _interpolated(p: Rewriter, call: Call, f: Stream, factors: list[int], coordinates: str) -> Stream:
    """Linear between two steps, and beyond the first and the last the same as there."""
    if coordinates not in ("half_pixel", "pytorch_half_pixel", "asymmetric"):
        raise RefusedError(
            f"interpolates from the first step to the last ({coordinates}): needs the whole sequence",
            "align_corners=False",
        )
    g, axis, by = p.graph, f.axis, factors[f.axis]
    x, found = p.name(call.node.input[0]), f
    before = 0 if coordinates == "asymmetric" or by == 1 else 1
    if by != 1:
        require_plain(f)
        x, found = mirror(p, x, found, before, 1, "edge")
        x, found = window(p, x, found, before + 2)
    scales = g.constant(np.array(factors, np.float32), "scales")
    x = g.add("Resize", x, "", scales, mode="linear", coordinate_transformation_mode=coordinates)
    count = p.count(Stage(found.count, by))
    if by != 1:  # the steps that were interpolated with the ends of this chunk are cut
        x = guarded(p, g.cut(x, axis, before * by, -by, "between"), axis, count)
    p.emitted(call, x)
    shape = tuple(size * Size.of(factor) for size, factor in zip(f.shape, factors, strict=True))
    return replace(f, shape=shape, count=count, dtype=p.output_dtype(call))


def _factors(call: Call, f: Stream) -> list[int]:
    """The whole factor of each axis.

    Raises:
        RefusedError: one is none.
    """
    scales, sizes = call.constant(2), call.numbers(3)
    axes = call.attributes.get("axes") or range(f.rank)
    found = [1] * f.rank
    for place, axis in enumerate(axes):
        if scales is not None and scales.size:
            factor = float(scales.reshape(-1)[place])
            if factor != int(factor) or factor < 1:
                raise RefusedError(f"changes the number of steps by {factor:g}, which is not a whole factor")
            found[axis] = int(factor)
        elif sizes is not None:
            number = _ratio(sizes[place], f.shape[axis])
            if number is None:
                raise RefusedError("changes the number of steps by no whole factor")
            found[axis] = number
        else:
            raise RefusedError("resizes to a size that is not known")
    return found


def _ratio(size: Size, own: Size) -> int | None:
    exact = size.divided(own)
    if exact is not None:
        return exact.number
    one, two = size.number, own.number
    return one // two if one is not None and two and one % two == 0 else None


def _repeats(factor: int, coordinates: str, nearest: str) -> bool:
    """Whether nearest interpolation by this factor repeats every entry so many times."""
    out = np.arange(factor * 8, dtype=np.float64)
    if coordinates in ("half_pixel", "pytorch_half_pixel"):
        x = (out + 0.5) / factor - 0.5
    elif coordinates == "asymmetric":
        x = out / factor
    else:
        return factor == 1
    rounded = {
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
        "floor": np.floor(x),
        "ceil": np.ceil(x),
    }.get(nearest)
    return rounded is not None and bool((np.clip(rounded, 0, 7) == out.astype(int) // factor).all())
