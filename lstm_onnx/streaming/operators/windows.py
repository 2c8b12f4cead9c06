"""Convolutions and pooling: a window of one step keeps steps independent, a wider one does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...onnxgraph import text
from ..fact import Axis, Fact, axis_of, join, length
from ..node import Call, Node, operator
from ..size import Size
from .elementwise import require_steps_alone

FIRST_SPATIAL = 2
"""After batch and channels."""
GLOBAL_POOLS = ("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")


@dataclass(frozen=True)
class Window:
    """The window of a convolution or a pool along each spatial axis.

    Attributes:
        before: padding at the start, from the attributes.
        after: padding at the end.
        extra: the output_padding of a transposed convolution.
        auto: auto_pad, such as SAME_UPPER; with NOTSET or VALID it pads nothing.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]
    extra: list[int]
    auto: str

    @property
    def is_padded_automatically(self) -> bool:
        """Whether the padding depends on the size of the input."""
        return self.auto not in ("NOTSET", "VALID")

    def reach(self, place: int) -> int:
        """The number of entries from the first to the last of a window, along one spatial axis."""
        return (self.kernel[place] - 1) * self.dilations[place] + 1


def window_of(node: Node[Any], rank: int, weight: Sequence[Size] = ()) -> Window | None:
    """The window of a node on an input with `rank` axes; None where its kernel is not known.

    Args:
        node: a convolution or a pool.
        rank: of the input.
        weight: the sizes of a convolution's weight.
    """
    found, count = node.attributes, rank - FIRST_SPATIAL
    kernel = list(found.get("kernel_shape") or [size.number or 0 for size in weight[FIRST_SPATIAL:]])
    if len(kernel) != count or not all(kernel):
        return None
    strides, dilations = (list(found.get(name, [1] * count)) for name in ("strides", "dilations"))
    pads, extra = list(found.get("pads", [0] * 2 * count)), list(found.get("output_padding", [0] * count))
    return Window(kernel, strides, dilations, pads[:count], pads[count:], extra, text(found.get("auto_pad", "NOTSET")))


@operator("Conv", "ConvInteger", "ConvTranspose")
def conv(call: Call) -> list[Fact]:
    """``(N, C, spatial...)`` with a weight ``(M, C, kernel...)``."""
    x, weight = call.fact(0), list(map(length, call.fact(1).axes or ()))
    groups = Size.of(int(call.attributes.get("group", 1)))
    transposed = call.op == "ConvTranspose"
    out = (weight[1] * groups if transposed else weight[0]) if len(weight) > 1 else Size.computed("out")
    return [_windowed(call, x, window_of(call, x.rank, weight), axis_of(out))]


@operator("AveragePool", "MaxPool", "LpPool")
def pool(call: Call) -> list[Fact]:
    """``(N, C, spatial...)``."""
    x = call.fact(0)
    channels = x.axes[1] if x.axes is not None and x.rank > 1 else ()
    result = _windowed(call, x, window_of(call, x.rank), channels)
    return [result, result]


@operator(*GLOBAL_POOLS)
def global_pool(call: Call) -> list[Fact]:
    """Global pooling over the spatial axes."""
    x = call.fact(0)
    if x.axes is None:
        call.meet(x.open, "pools over all steps")
        return [replace(x, numbers=None)]
    call.meet({name for axis in x.axes[FIRST_SPATIAL:] for name in length(axis).names}, "pools over all steps")
    return [replace(x, axes=(*x.axes[:FIRST_SPATIAL], *([()] * (x.rank - FIRST_SPATIAL))), numbers=None)]


def _windowed(call: Call, x: Fact, window: Window | None, channels: Axis) -> Fact:
    joined = replace(join(call.given), numbers=None)
    if x.axes is None or window is None:
        call.meet(x.open, "computes one step from several")
        return replace(joined, spans=x.open)
    if call.op not in ("AveragePool", "MaxPool", "LpPool"):
        call.meet(length(x.axes[1]).names, "uses the steps as channels")
    axes: list[Axis] = [x.axes[0], channels]
    for place, axis in enumerate(x.axes[FIRST_SPATIAL:]):
        before, after = window.before[place], window.after[place]
        alone = window.kernel[place] == window.strides[place] == 1 and not window.extra[place] and before == after
        if alone and (window.is_padded_automatically or before == 0):
            axes.append(axis)
            continue
        size = length(axis)
        call.meet(size.names, "computes one step from several")
        axes.append(_left(call, size, window, place))
    result = replace(joined, axes=tuple(axes))
    require_steps_alone(call, call.given, result)
    return result


def _left(call: Call, size: Size, window: Window, place: int) -> Axis:
    """The output size of a spatial axis."""
    if size.number is None:
        return axis_of(Size.computed("windows", size))
    stride, unusual = window.strides[place], call.op == "ConvTranspose" or call.attributes.get("ceil_mode", 0)
    if window.is_padded_automatically or unusual or not stride:
        return (Size.computed("windows"),)
    left = size.number + window.before[place] + window.after[place] - window.reach(place)
    return axis_of(Size.of(left // stride + 1))


@operator("BatchNormalization")
def batch_norm(call: Call) -> list[Fact]:
    """BatchNormalization: stored statistics per channel; in training mode those of the current batch."""
    x = call.fact(0)
    if call.attributes.get("training_mode", 0):
        call.meet(x.open, "takes the mean of all steps (training mode)")
    elif x.axes is not None and x.rank > 1:
        call.meet(length(x.axes[1]).names, "uses the steps as channels")
    return [replace(x, numbers=None)]
