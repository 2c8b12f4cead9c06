"""Convolutions and pooling: a window over steps, whose earlier ones are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...size import Size
from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, require_shape
from ..stages import window

SPATIAL = 2
"""The first spatial axis, after batch and channels."""


@dataclass(frozen=True)
class Window:
    """The window of an operator along each spatial axis."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]

    def size(self, place: int, size: Size, p: Rewriter) -> Size:
        """The size of an axis of the result."""
        reach = (self.kernel[place] - 1) * self.dilations[place] + 1
        whole = size + Size.of(self.before[place] + self.after[place] - reach)
        return p.lengths.floor(whole, self.strides[place]) + Size.of(1)


@family("Conv", "AveragePool", "MaxPool", "LpPool")
def windowed(p: Rewriter, call: Call) -> list[Fact]:
    """``(N, C, spatial...)``; a kernel does not vary with time."""
    fact = call.fact(0)
    if any(not isinstance(other, Static) for other in call.given[1:]):
        raise RefusedError("has a kernel that varies with time")
    if not isinstance(fact, Stream):
        return p.plain(call)
    if fact.axis == 1 and call.op == "Conv":  # a pool takes each channel by itself
        raise RefusedError("has time for its channels")
    if call.attributes.get("ceil_mode"):
        raise RefusedError("has ceil_mode", "pad the input")
    shape = window_of(call, fact)
    channels = fact.shape[1]
    if call.op == "Conv":
        channels = require_shape(call.given[1])[0]
    sizes = [fact.shape[0], channels]
    sizes += [shape.size(place, size, p) for place, size in enumerate(fact.shape[SPATIAL:])]
    if any(name for name in call.node.output[1:]):
        raise RefusedError("gives the places of the largest steps, counted from the first of the sequence")
    if fact.axis < SPATIAL:  # time, or batch and time, is what ONNX calls the batch, or of a pool the channels
        p.copy(call)
        return [replace(fact, shape=tuple(sizes), dtype=p.output_dtype(call))]
    d = fact.axis - SPATIAL
    _require_simple(call, shape, d)
    fill = -np.inf if call.op == "MaxPool" else 0.0
    cut, steps = p.crop_after(call.node.output[0], fact.axis)
    if 0 < steps <= shape.after[d] and shape.strides[d] == 1:
        shape.after[d] -= steps
        sizes[fact.axis] -= Size.of(steps)
        p.cropped.add(cut)
    reach = (shape.kernel[d] - 1) * shape.dilations[d] + 1
    x = p.name(call.node.input[0])
    fed, found = window(p, x, fact, reach, shape.strides[d], shape.before[d], shape.after[d], fill)
    before, after = list(shape.before), list(shape.after)
    before[d] = after[d] = 0
    others = [p.name(name) if name else "" for name in call.node.input[1:]]
    pads = [*before, *after]
    p.copy(call, [fed, *others], pads=pads if any(pads) else None, auto_pad=None)
    return [replace(found, shape=tuple(sizes), dtype=p.output_dtype(call))]


def window_of(call: Call, fact: Stream) -> Window:
    """The window of a Conv or a pool on this input.

    Raises:
        RefusedError: its kernel is not known.
    """
    count = fact.rank - SPATIAL
    kernel = call.attributes.get("kernel_shape")
    if kernel is None:
        weight = call.fact(1)
        sizes = [size.number for size in (weight.shape or ())[SPATIAL:]] if weight is not None else []
        kernel = [size for size in sizes if size is not None]
    if len(kernel) != count:
        raise RefusedError("has a kernel of unknown size")
    strides = list(call.attributes.get("strides", [1] * count))
    dilations = list(call.attributes.get("dilations", [1] * count))
    pads = list(call.attributes.get("pads", [0] * 2 * count))
    before, after = pads[:count], pads[count:]
    auto = bytes(call.attributes.get("auto_pad", b"NOTSET")).decode()
    if auto.startswith("SAME"):
        before, after = _same_pads(kernel, strides, dilations, upper=auto == "SAME_UPPER", sizes=fact.shape[SPATIAL:])
    return Window(list(kernel), strides, dilations, before, after)


def _same_pads(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, upper: bool, sizes: Sequence[Size]
) -> tuple[list[int], list[int]]:
    before, after = [], []
    for place, size in enumerate(kernel):
        reach = (size - 1) * dilations[place] + 1
        number, stride = sizes[place].number, strides[place]
        if number is None and stride != 1:
            raise RefusedError("has auto_pad with a stride, and its padding depends on the number of steps")
        both = reach - 1 if number is None else max((-(-number // stride) - 1) * stride + reach - number, 0)
        less = both // 2
        before.append(less if upper else both - less)
        after.append(both - less if upper else less)
    return before, after


def _require_simple(call: Call, shape: Window, d: int) -> None:
    padded = shape.before[d] or shape.after[d]
    if call.op == "AveragePool" and padded and not call.attributes.get("count_include_pad"):
        raise RefusedError(
            "averages fewer steps at the ends (count_include_pad=0 with padding)", "count_include_pad=True"
        )
    if call.op == "LpPool" and padded:
        raise RefusedError("pads along time")


@family("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def pooled(p: Rewriter, call: Call) -> list[Fact]:
    """All spatial axes, of which time must be none."""
    fact = call.fact(0)
    if not isinstance(fact, Stream):
        return p.plain(call)
    if fact.axis >= SPATIAL:
        raise RefusedError("pools over all steps: needs the whole sequence", "a pool over a window of steps")
    p.copy(call)
    shape = (*fact.shape[:SPATIAL], *([Size.of(1)] * (fact.rank - SPATIAL)))
    return [replace(fact, shape=shape)]
