"""Resize by integer factors: each step is repeated, or steps between two are interpolated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...size import Size
from ..counts import Stage
from ..errors import RefusedError
from ..facts import Fact, Stream
from ..rewriter import Call, Rewriter, family, of_stream
from ..stages import guarded, mirror, require_plain, window


@family("Resize")
@of_stream
def resize(p: Rewriter, call: Call, f: Stream) -> list[Fact]:
    """Nearest or linear along time; any mode that leaves time unchanged along other axes."""
    g = p.graph
    factors = _factors(call, f)
    by, options = factors[f.axis], _options(call, factors, f.axis)
    if by != 1:
        require_plain(f)
    x, found, before = p.name(call.node.input[0]), f, 0
    between = options["mode"] == "linear" and by != 1
    if between:  # between two steps; past the first or last step the value is that of the step
        before = 0 if options["coordinate_transformation_mode"] == "asymmetric" else 1
        x, found = mirror(p, x, found, before, 1, "edge")
        x, found = window(p, x, found, before + 2)
    x = g.add("Resize", x, "", g.constant(np.array(factors, np.float32), "scales"), **options)
    count = p.count(Stage(found.count, by))
    if between:  # cut the steps that were interpolated with the ends of this chunk
        x = g.cut(x, f.axis, before * by, -by, "between")
    if by != 1:
        x = guarded(p, x, f.axis, count)
    p.emitted(call, x)
    shape = tuple(size * Size.of(factor) for size, factor in zip(f.shape, factors, strict=True))
    return [replace(f, shape=shape, count=count, dtype=p.output_dtype(call))]


def _options(call: Call, factors: list[int], axis: int) -> dict[str, str]:
    """The attributes of a Resize of chunks.

    Raises:
        RefusedError: its steps come from elsewhere in the sequence.
    """
    mode = bytes(call.attributes.get("mode", b"nearest")).decode()
    coordinates = bytes(call.attributes.get("coordinate_transformation_mode", b"half_pixel")).decode()
    if mode == "linear":
        if coordinates not in ("half_pixel", "pytorch_half_pixel", "asymmetric"):
            raise RefusedError(
                f"interpolates from the first step to the last ({coordinates}): needs the whole sequence",
                "align_corners=False",
            )
        return {"mode": "linear", "coordinate_transformation_mode": coordinates}
    if mode != "nearest":
        raise RefusedError(f"interpolates between steps ({mode})", 'mode="nearest" or "linear"')
    nearest = bytes(call.attributes.get("nearest_mode", b"round_prefer_floor")).decode()
    if not all(_repeats(factor, coordinates, nearest) for factor in factors):
        raise RefusedError(
            f"takes steps by {coordinates} and {nearest}, which does not repeat each {factors[axis]} times"
        )
    return {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _factors(call: Call, f: Stream) -> list[int]:
    """The integer factor of each axis.

    Raises:
        RefusedError: one is not an integer.
    """
    scales, sizes = call.constant(2), call.numbers(3)
    axes = call.attributes.get("axes") or range(f.rank)
    found = [1] * f.rank
    for place, axis in enumerate(axes):
        if scales is not None and scales.size:
            factor = float(scales.reshape(-1)[place])
            if factor != int(factor) or factor < 1:
                raise RefusedError(f"changes the number of steps by {factor:g}, which is not an integer factor")
            found[axis] = int(factor)
        elif sizes is not None:
            number = _ratio(sizes[place], f.shape[axis])
            if number is None:
                raise RefusedError("changes the number of steps by a factor that is not an integer")
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
    """Whether nearest interpolation by this factor repeats every entry `factor` times."""
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
