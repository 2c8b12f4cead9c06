"""The window of a convolution or a pool over steps: its padding, and the sizes of its result."""

from __future__ import annotations

from dataclasses import replace

from ...operators.windows import FIRST_SPATIAL, Window, window_of
from ...size import Size
from ..facts import RefusedError, Stream
from ..rewriter import Call, Rewriter


def size_of(p: Rewriter, window: Window, place: int, size: Size) -> Size:
    """The size of an axis of the result."""
    whole = size + Size.of(window.before[place] + window.after[place] - window.reach(place))
    return p.lengths.floor(whole, window.strides[place]) + Size.of(1)


def padded_window(call: Call, fact: Stream) -> Window:
    """The window on this input, with the padding that it has there.

    Raises:
        RefusedError: its kernel is not known, or its padding depends on the number of steps.
    """
    weight = call.fact(1)
    window = window_of(call, fact.rank, (weight.shape if weight is not None else None) or ())
    if window is None:
        raise RefusedError("has a kernel of unknown size")
    if not window.auto.startswith("SAME"):
        return window
    less, more = [], []
    for place, size in enumerate(fact.shape[FIRST_SPATIAL:]):
        number, stride, reach = size.number, window.strides[place], window.reach(place)
        if number is None and stride != 1:
            raise RefusedError("has auto_pad with a stride, and its padding depends on the number of steps")
        both = reach - 1 if number is None else max((-(-number // stride) - 1) * stride + reach - number, 0)
        less.append(both // 2)
        more.append(both - both // 2)
    before, after = (less, more) if window.auto == "SAME_UPPER" else (more, less)
    return replace(window, before=before, after=after)
