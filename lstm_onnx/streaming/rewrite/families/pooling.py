"""Pooling: what ceil_mode adds at the end, and averages of fewer steps where padding is not counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...operators.windows import FIRST_SPATIAL, Window
from ...size import ONE, Size
from ..facts import RefusedError, Stream
from ..rewriter import Call, Rewriter
from ..stages import window


def with_last_window(call: Call, shape: Window) -> Window:
    """With padding at the end instead of ceil_mode, whose last window may go over the end but starts before it."""
    if not call.attributes.get("ceil_mode"):
        return shape
    after = [
        min(padding + stride - 1, shape.reach(place) - 1)
        for place, (padding, stride) in enumerate(zip(shape.after, shape.strides, strict=True))
    ]
    return replace(shape, after=after)


def averages_fewer(call: Call, shape: Window, d: int) -> bool:
    """Whether some windows are divided by another number than others, in a way that depends on the end of time."""
    if call.op != "AveragePool":
        return False
    if call.attributes.get("count_include_pad"):
        return bool(call.attributes.get("ceil_mode")) and shape.after != _explicit(call, shape)[1]
    return bool(shape.before[d] or shape.after[d])


def _explicit(call: Call, shape: Window) -> tuple[list[int], list[int]]:
    """The padding that the node itself has."""
    count = len(shape.kernel)
    pads = list(call.attributes.get("pads", [0] * 2 * count))
    return pads[:count], pads[count:]


def averaged(p: Rewriter, call: Call, fact: Stream, shape: Window, total: str, found: Stream) -> str:
    """The average of what is there, of the average that counts all of a window.

    Args:
        p: the rewrite.
        call: the AveragePool.
        fact: its input.
        shape: its window, with `with_last_window`.
        total: its output with zeros for what is not there, counted.
        found: the fact of that.
    """
    g, dtype = p.graph, p.dtype(fact)
    d = fact.axis - FIRST_SPATIAL
    if any(size.number is None for a, size in enumerate(fact.shape) if a >= FIRST_SPATIAL and a != fact.axis):
        raise RefusedError("averages fewer entries at the ends of an open axis")
    sizes = (fact.shape[0], ONE, *fact.shape[FIRST_SPATIAL:])
    one = g.constant(np.ones([1] * fact.rank, dtype), "one")
    ones = g.add("Expand", one, p.target(sizes, fact.axis, g.at_least_one(fact.count)), hint="ones")
    there = replace(fact, shape=sizes)
    counted = bool(call.attributes.get("count_include_pad"))
    before, after = list(shape.before), list(shape.after)
    if counted:
        first, last = _explicit(call, shape)
        before = [b - own for b, own in zip(before, first, strict=True)]
        after = [a - own for a, own in zip(after, last, strict=True)]
        ones, there = window(p, ones, there, 1, 1, first[d], last[d], 1.0)
        first[d] = last[d] = 0
        if any((*first, *last)):
            ones = g.add("Pad", ones, g.ints(0, 0, *first, 0, 0, *last), g.constant(np.ones((), dtype)), hint="counted")
            grown = zip(there.shape[FIRST_SPATIAL:], first, last, strict=True)
            there = replace(there, shape=(*sizes[:FIRST_SPATIAL], *(size + Size.of(b + a) for size, b, a in grown)))
    reach = shape.reach(d)
    fed, there = window(p, ones, there, reach, shape.strides[d], before[d], after[d], 0.0)
    before[d] = after[d] = 0
    if there.count != found.count:
        raise RefusedError("averages fewer steps at the ends")
    options = {"dilations": shape.dilations} if set(shape.dilations) != {1} else {}
    pads = {"pads": [*before, *after]} if any((*before, *after)) else {}
    share = g.add("AveragePool", fed, kernel_shape=shape.kernel, strides=shape.strides, count_include_pad=1,
                  hint="share", **options, **pads)  # fmt: skip
    return g.add("Div", total, share, hint="averaged")
