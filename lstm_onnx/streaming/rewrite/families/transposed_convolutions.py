"""Transposed convolutions and `F.fold`: what a step adds to later ones is kept until they are complete."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...operators.windows import FIRST_SPATIAL, window_of
from ...size import ONE, Size
from ..counts import Stage
from ..facts import Fact, RefusedError, Stream, with_size
from ..graph import make_node_like
from ..rewriter import Call, Rewriter, family, of_stream, require_shape, require_static
from ..stages import drop_end, drop_start, guarded, require_plain


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
            raise RefusedError("has time for its channels")
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
    if any(a.get("pads", ())) or image[d] != (f.shape[f.axis] - ONE) * Size.of(stride) + Size.of(reach):
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
    shape = with_size(shape, FIRST_SPATIAL + d, image[d] + Size.of(max(stride - reach, 0)))
    x, whole = _summed(p, x, Stream(shape, p.output_dtype(call), FIRST_SPATIAL + d, f.count), (reach, stride, 0))
    if stride > reach:
        x, whole = drop_end(p, x, whole, stride - reach)
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
        return guarded(p, name, axis, count) if not g.is_exact(count) else name, whole
    dtype = np.dtype(p.dtype(whole))
    shape = list(whole.shape)
    shape[axis] = Size.of(over)
    state = g.state(p.state_name("overlap"), dtype, tuple(shape))
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
