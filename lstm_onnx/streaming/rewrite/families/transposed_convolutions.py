"""Transposed convolutions: what a step adds to later ones is kept until they are complete."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...operators.windows import FIRST_SPATIAL, window_of
from ...size import ONE, Size
from ..counts import Stage
from ..facts import Fact, RefusedError, Stream
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
    x, whole = _summed(p, call, f, whole, (reaches[d], strides[d], trimmed), pads, extra)
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


def _summed(
    p: Rewriter, call: Call, f: Stream, whole: Stream, along: tuple[int, int, int], pads: list[int], extra: list[int]
) -> tuple[str, Stream]:
    """The result without padding and bias: ``(steps - 1) * stride + reach - trimmed`` steps, or `stride` for each."""
    g, axis = p.graph, f.axis
    reach, stride, trimmed = along
    over = max(reach - stride, 0)
    name = g.fresh(f"{g.prefix}/whole")
    inputs = [p.name(call.node.input[0]), p.name(call.node.input[1])]
    g.nodes.nodes.append(make_node_like(call.node, inputs, [name], pads=pads, output_padding=extra))
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
