"""Convolutions and pooling: a window of one step keeps steps independent, a wider one does not."""

from __future__ import annotations

from dataclasses import replace

from ..call import Call, operator
from ..fact import Axis, Fact, axis_of, join, length
from ..size import ONE, Size
from .elementwise import require_steps_alone

_FIRST_SPATIAL = 2


@operator("Conv", "ConvInteger", "ConvTranspose")
def conv(call: Call) -> list[Fact]:
    """``(N, C, spatial...)`` with a weight ``(M, C, kernel...)``."""
    x, weight = call.fact(0), call.fact(1)
    kernel = call.attributes.get("kernel_shape")
    sizes = weight.axes or ()
    if kernel is None and len(sizes) > _FIRST_SPATIAL:
        found = [length(axis).number for axis in sizes[_FIRST_SPATIAL:]]
        kernel = None if None in found else found
    transposed = call.op_type == "ConvTranspose"
    groups = Size.of(int(call.attributes.get("group", 1)))
    out = (length(sizes[1]) * groups if transposed else length(sizes[0])) if len(sizes) > 1 else Size.computed("out")
    return [_windowed(call, x, kernel, axis_of(out))]


@operator("AveragePool", "MaxPool", "LpPool")
def pool(call: Call) -> list[Fact]:
    """``(N, C, spatial...)``."""
    x = call.fact(0)
    channels = x.axes[1] if x.axes is not None and x.rank > 1 else ()
    result = _windowed(call, x, call.attributes.get("kernel_shape"), channels)
    return [result, result]


@operator("GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool")
def global_pool(call: Call) -> list[Fact]:
    """Global pooling over the spatial axes."""
    x = call.fact(0)
    if x.axes is None:
        call.meet(x.open, "pools over all steps")
        return [replace(x, numbers=None)]
    call.meet({name for axis in x.axes[_FIRST_SPATIAL:] for name in length(axis).names}, "pools over all steps")
    return [replace(x, axes=(*x.axes[:_FIRST_SPATIAL], *([()] * (x.rank - _FIRST_SPATIAL))), numbers=None)]


def _windowed(call: Call, x: Fact, kernel: list[int] | None, channels: Axis) -> Fact:
    joined = replace(join(call.given), numbers=None)
    if x.axes is None or kernel is None or x.rank != len(kernel) + _FIRST_SPATIAL:
        call.meet(x.open, "computes one step from several")
        return replace(joined, spans=x.open)
    count = len(kernel)
    strides = call.attributes.get("strides", [1] * count)
    pads = call.attributes.get("pads", [0] * 2 * count)
    automatic = call.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID", "NOTSET", "VALID")
    extra = call.attributes.get("output_padding", [0] * count)
    if call.op_type not in ("AveragePool", "MaxPool", "LpPool"):
        call.meet(length(x.axes[1]).names, "takes steps for channels")
    axes: list[Axis] = [x.axes[0], channels]
    for place, axis in enumerate(x.axes[_FIRST_SPATIAL:]):
        alone = kernel[place] == 1 and strides[place] == 1 and not extra[place] and pads[place] == pads[count + place]
        if alone and (automatic or pads[place] == 0):
            axes.append(axis)
            continue
        size = length(axis)
        call.meet(size.names, "computes one step from several")
        axes.append(_left(call, size, kernel, place, automatic=automatic))
    result = replace(joined, axes=tuple(axes))
    require_steps_alone(call, call.given, result)
    return result


def _left(call: Call, size: Size, kernel: list[int], place: int, *, automatic: bool) -> Axis:
    """The output size of a spatial axis."""
    count = len(kernel)
    stride = call.attributes.get("strides", [1] * count)[place]
    pads = call.attributes.get("pads", [0] * 2 * count)
    reach = call.attributes.get("dilations", [1] * count)[place] * (kernel[place] - 1)
    number = size.number
    if (
        number is None
        or automatic
        or call.op_type == "ConvTranspose"
        or call.attributes.get("ceil_mode", 0)
        or not stride
    ):
        return axis_of(Size.computed("windows", size)) if number is None else (Size.computed("windows"),)
    left = (number + pads[place] + pads[count + place] - reach - 1) // stride + 1
    return axis_of(Size.of(left)) if left != 1 else axis_of(ONE)


@operator("BatchNormalization")
def batch_norm(call: Call) -> list[Fact]:
    """BatchNormalization: stored statistics per channel; in training mode those of the current batch."""
    x = call.fact(0)
    if call.attributes.get("training_mode", 0):
        call.meet(x.open, "takes the mean of all steps (training mode)")
    elif x.axes is not None and x.rank > 1:
        call.meet(length(x.axes[1]).names, "takes steps for channels")
    return [replace(x, numbers=None)]
