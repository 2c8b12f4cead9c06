"""Convolutions, pooling and STFT: a window over steps, of which a cache holds the earlier ones.

For transposed convolutions and `F.fold`, a cache holds what a step adds to later ones until these are complete.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...operators.windows import FIRST_SPATIAL, Window, window_of
from ...size import ONE, Size
from ..counts import Least, Stage
from ..errors import RefusedError
from ..facts import Fact, Stream, with_size
from ..graph import make_node_like
from ..rewriter import Call, Rewriter, family, of_stream, require_shape, require_static
from ..stages import drop_end, drop_start, guarded, require_plain, window


@family("Conv", "AveragePool", "MaxPool", "LpPool")
@of_stream
def windowed(p: Rewriter, call: Call, fact: Stream) -> list[Fact]:
    """``(N, C, spatial...)``; a kernel does not vary with time."""
    require_static(call, "kernel")
    if fact.axis == 1 and call.op == "Conv":  # a pool computes each channel separately
        raise RefusedError("uses time as its channels")
    shape = padded_window(call, fact)
    if fact.axis >= FIRST_SPATIAL:
        shape = with_last_window(call, shape)
    elif call.attributes.get("ceil_mode"):
        raise RefusedError("has ceil_mode on axes other than time", "padding")
    channels = fact.shape[1]
    if call.op == "Conv":
        channels = require_shape(call.given[1])[0]
    sizes = [fact.shape[0], channels]
    sizes += [size_of(p, shape, place, size) for place, size in enumerate(fact.shape[FIRST_SPATIAL:])]
    if any(call.node.output[1:]):
        raise RefusedError("gives the indices of the largest steps, counted from the start of the sequence")
    if fact.axis < FIRST_SPATIAL:  # time is (part of) the node's batch axis, or the channels of a pool
        p.copy(call)
        return [replace(fact, shape=tuple(sizes), dtype=p.output_dtype(call))]
    return [_along_time(p, call, fact, shape, sizes)]


def _along_time(p: Rewriter, call: Call, fact: Stream, shape: Window, sizes: list[Size]) -> Stream:
    """A window over steps.

    Args:
        p: the rewrite.
        call: the node.
        fact: its input.
        shape: the window.
        sizes: of the result's axes.
    """
    d = fact.axis - FIRST_SPATIAL
    if call.op == "LpPool" and (shape.before[d] or shape.after[d]):
        raise RefusedError("pads along time")
    fill = -np.inf if call.op == "MaxPool" else 0.0
    cut, steps = p.crop_after(call.node.output[0], fact.axis)
    if 0 < steps <= shape.after[d] and shape.strides[d] == 1 and call.op != "AveragePool":
        shape.after[d] -= steps
        sizes[fact.axis] -= Size.of(steps)
        p.cropped.add(cut)
    reach = shape.reach(d)
    x = p.name(call.node.input[0])
    fed, found = window(p, x, fact, reach, shape.strides[d], shape.before[d], shape.after[d], fill)
    p.require_steps(found.count)
    before, after = list(shape.before), list(shape.after)
    before[d] = after[d] = 0
    pads = [*before, *after]
    fewer = averages_fewer(call, shape, d)
    changed: dict[str, list[int] | int | None] = {"pads": pads if any(pads) else None, "auto_pad": None}
    if call.attributes.get("ceil_mode"):
        changed["ceil_mode"] = None
    if fewer:
        changed["count_include_pad"] = 1
    p.copy(call, [fed, *p.inputs(call)[1:]], **changed)
    if fewer:
        p.emitted(call, averaged(p, call, fact, shape, p.names[call.node.output[0]], found))
    return replace(found, shape=tuple(sizes), dtype=p.output_dtype(call))


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


@family("STFT")
@of_stream
def frames(p: Rewriter, call: Call, f: Stream) -> list[Fact]:
    """``(batch, time, 1)`` or, complex, ``(batch, time, 2)`` to ``(batch, frames, bins, 2)``."""
    steps, lengths = call.integers(1), call.integers(3)
    require_static(call, "window")
    if f.axis != 1:
        raise RefusedError("has time on an axis other than that of its samples")
    shape = call.fact(2).shape if call.has(2) else None  # type: ignore[union-attr]
    number = lengths[0] if lengths else shape[0].number if shape else None
    if steps is None or number is None:
        raise RefusedError("has frames of a length that is not constant")
    x, found = window(p, p.name(call.node.input[0]), f, number, steps[0])
    p.require_steps(found.count)
    p.copy(call, [x, *p.inputs(call)[1:]])
    bins = number // 2 + 1 if call.attributes.get("onesided", 1) else number
    sizes = (f.shape[0], found.shape[1], Size.of(bins), Size.of(2))
    return [replace(found, shape=sizes, dtype=p.output_dtype(call))]


def with_last_window(call: Call, shape: Window) -> Window:
    """The window with padding in place of ceil_mode, whose last window may extend past the end but starts before it."""
    if not call.attributes.get("ceil_mode"):
        return shape
    after = [
        min(padding + stride - 1, shape.reach(place) - 1)
        for place, (padding, stride) in enumerate(zip(shape.after, shape.strides, strict=True))
    ]
    return replace(shape, after=after)


def averages_fewer(call: Call, shape: Window, d: int) -> bool:
    """Whether windows are divided by different numbers, depending on where the sequence ends."""
    if call.op != "AveragePool":
        return False
    if call.attributes.get("count_include_pad"):
        return bool(call.attributes.get("ceil_mode")) and shape.after != _explicit(call, shape)[1]
    return bool(shape.before[d] or shape.after[d])


def _explicit(call: Call, shape: Window) -> tuple[list[int], list[int]]:
    """The node's own padding."""
    count = len(shape.kernel)
    pads = list(call.attributes.get("pads", [0] * 2 * count))
    return pads[:count], pads[count:]


def averaged(p: Rewriter, call: Call, fact: Stream, shape: Window, total: str, found: Stream) -> str:
    """The average over existing steps, from an average that divides by the whole window.

    Args:
        p: the rewrite.
        call: the AveragePool.
        fact: its input.
        shape: its window, with `with_last_window`.
        total: its output with zeros for steps that do not exist, which are counted.
        found: the fact of that.
    """
    g, dtype = p.graph, p.dtype(fact)
    d = fact.axis - FIRST_SPATIAL
    if any(size.number is None for a, size in enumerate(fact.shape) if a >= FIRST_SPATIAL and a != fact.axis):
        raise RefusedError("averages fewer entries at the ends of a dynamic axis")
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


@family("ConvTranspose")
@of_stream
def transposed(p: Rewriter, call: Call, f: Stream) -> list[Fact]:
    """``(N, C, spatial...)`` with a weight ``(C, M / group, kernel...)``."""
    require_static(call, "kernel")
    require_plain(f)
    a, count = call.attributes, f.rank - FIRST_SPATIAL
    weight = require_shape(call.given[1])
    window = window_of(call, f.rank, weight)
    if window is None:
        raise RefusedError("has a kernel of unknown size")
    if "output_shape" in a or window.is_padded_automatically:
        raise RefusedError("has a padding that depends on the number of steps")
    strides, pads, extra = window.strides, [*window.before, *window.after], window.extra
    channels = weight[1] * Size.of(int(a.get("group", 1)))
    reaches = [window.reach(place) for place in range(count)]
    sizes = [
        (size - ONE) * Size.of(strides[i]) + Size.of(reaches[i] + extra[i] - pads[i] - pads[count + i])
        for i, size in enumerate(f.shape[FIRST_SPATIAL:])
    ]
    if f.axis < FIRST_SPATIAL:
        if f.axis == 1:
            raise RefusedError("uses time as its channels")
        p.copy(call)
        return [replace(f, shape=(f.shape[0], channels, *sizes), dtype=p.output_dtype(call))]
    d = f.axis - FIRST_SPATIAL
    left, right = pads[d], pads[count + d] - extra[d]
    if right < 0:
        raise RefusedError("has an output_padding of more than its padding")
    pads[d] = pads[count + d] = extra[d] = 0
    cut, steps = p.crop_after(call.node.output[0], f.axis)
    over = max(reaches[d] - strides[d], 0)
    if 0 < steps <= over - right:
        right += steps
        p.cropped.add(cut)
    trimmed = min(right, over)  # these steps would only come with the next step, or at the end
    right -= trimmed
    sizes[d] = (f.shape[f.axis] - ONE) * Size.of(strides[d]) + Size.of(max(reaches[d], strides[d]) - trimmed)
    whole = Stream((f.shape[0], channels, *sizes), p.output_dtype(call), f.axis, f.count)
    x = p.graph.fresh(f"{p.graph.prefix}/whole")
    inputs = [p.name(call.node.input[0]), p.name(call.node.input[1])]
    p.graph.nodes.nodes.append(make_node_like(call.node, inputs, [x], pads=pads, output_padding=extra))
    x, whole = _summed(p, x, whole, (reaches[d], strides[d], trimmed))
    if left:
        x, whole = drop_start(p, x, whole, left)
    right += max(strides[d] - reaches[d], 0)  # no window reaches these steps
    if right:
        x, whole = drop_end(p, x, whole, right)
    if cut not in p.cropped:
        p.require_steps(whole.count)
    if call.has(2):
        shape = p.graph.ints(1, -1, *[1] * count)
        bias = p.graph.add("Reshape", p.name(call.node.input[2]), shape, hint="bias")
        x = p.graph.add("Add", x, bias)
    p.emitted(call, x)
    return [whole]


@family("Col2Im")
def fold(p: Rewriter, call: Call) -> list[Fact]:
    """``(N, C * window, windows)`` to ``(N, C, height, width)``, of which one is 1 and the other time."""
    f, image, block = call.fact(0), call.numbers(1), call.integers(2)
    if not isinstance(f, Stream):
        return p.plain(call)
    require_plain(f)
    time = [place for place, size in enumerate(image or ()) if p.lengths.depends(size)]
    if f.axis != f.rank - 1 or image is None or block is None or len(time) != 1:
        raise RefusedError("puts blocks together along other axes than time")
    [d], count, a = time, len(block), call.attributes
    if any(image[place] != ONE or block[place] != 1 for place in range(count) if place != d):
        raise RefusedError("puts blocks together along other axes than time as well")
    stride, dilation = (int(a.get(name, [1] * count)[d]) for name in ("strides", "dilations"))
    reach = (block[d] - 1) * dilation + 1
    own = (f.shape[f.axis] - ONE) * Size.of(stride) + Size.of(reach)
    windows = p.lengths.floor(image[d] - Size.of(reach), stride) + ONE
    if any(a.get("pads", ())) or windows != f.shape[f.axis]:
        raise RefusedError("puts windows together to other steps than theirs", "the size that the windows have")
    channels = f.shape[1].divided(Size.of(block[d]))
    if channels is None:
        raise RefusedError("has channels that are not whole windows")
    g = p.graph
    last = g.math("Mul", g.math("Sub", g.at_least_one(f.count), 1), stride)
    sizes = [g.math("Add", last, reach) if place == d else g.ints(1) for place in range(count)]
    x = g.fresh(f"{g.prefix}/whole")
    inputs = [p.name(call.node.input[0]), g.joined(sizes, 0, "image"), p.name(call.node.input[2])]
    g.nodes.nodes.append(make_node_like(call.node, inputs, [x]))
    shape = (f.shape[0], channels, *image)
    shape = with_size(shape, FIRST_SPATIAL + d, own + Size.of(max(stride - reach, 0)))
    x, whole = _summed(p, x, Stream(shape, p.output_dtype(call), FIRST_SPATIAL + d, f.count), (reach, stride, 0))
    if stride > reach:
        x, whole = drop_end(p, x, whole, stride - reach)
    if image[d] != own:  # steps after the last window, fewer than a stride
        x, longer = window(p, x, whole, 1, 1, 0, stride - 1)
        least = p.count(Least((longer.count, p.count_of(image[d]))))
        x, whole = guarded(p, x, whole.axis, least), whole.with_steps(image[d], least)
    p.emitted(call, x)
    return [whole]


def _summed(p: Rewriter, name: str, whole: Stream, along: tuple[int, int, int]) -> tuple[str, Stream]:
    """The result without padding and bias: ``(steps - 1) * stride + reach - trimmed`` steps, or `stride` for each.

    Args:
        p: the rewrite.
        name: the sum of what the steps of this call add.
        whole: its fact, with the count of the steps that it is made of.
        along: reach, stride, trimmed.
    """
    g, axis, f = p.graph, whole.axis, whole
    reach, stride, trimmed = along
    over = max(reach - stride, 0)
    count = p.count(Stage(f.count, stride, 0, over - trimmed))
    whole = replace(whole, count=count)
    if reach < stride:
        name = g.padded(name, axis, f.rank, stride - reach, 0.0, p.dtype(whole))
    if not over:
        return guarded(p, name, axis, count), whole
    dtype = p.dtype(whole)
    state = g.state(p.state_name("overlap"), dtype, with_size(whole.shape, axis, Size.of(over)))
    steps = g.math("Mul", g.new(f.count), stride)
    # Where no step is due, the tensor's one step is not real, and adds nothing.
    if not g.is_exact(f.count):
        name = g.add("Where", g.any_new(f.count), name, g.constant(np.zeros((), dtype), "zero"))
    size = g.math("Add", g.math("Mul", g.at_least_one(f.count), stride), over)
    kept = g.padded(state.name, axis, f.rank, g.math("Sub", size, over), 0.0, dtype)
    total = g.add("Add", name, kept, hint="summed")
    g.feed(state, g.cut(total, axis, steps, g.math("Add", steps, over)))
    if g.is_exact(count):
        return g.cut(total, axis, 0, steps), whole
    return guarded(p, total, axis, count), whole
