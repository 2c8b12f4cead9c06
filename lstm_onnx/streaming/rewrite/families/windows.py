"""The window of a convolution or a pool: its size, strides and padding along each spatial axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...size import Size
from ..facts import RefusedError, Stream
from ..rewriter import Call, Rewriter

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
