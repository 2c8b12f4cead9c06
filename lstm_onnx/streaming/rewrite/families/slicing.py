"""Slice: drops steps at the start or the end, and selects every k-th, the first or the last step, or rows of a table.

And Gather: reads embeddings, channels, the first step and the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....onnxgraph.nodes import END_OF_AXIS
from ...size import ONE, Size, normal
from ..counts import Least, largest_lead
from ..errors import RefusedError
from ..facts import Carry, Fact, Places, Static, Stream, with_size
from ..graph import END
from ..rewriter import Call, Rewriter, family, require_shape
from ..stages import (
    copy_aligned,
    drop_end,
    drop_start,
    first_step,
    give_where_none_is_due,
    guarded,
    hold_back,
    last_step,
    last_steps,
    require_plain,
    window,
)
from .unchanged import BY_PLACE, unchanged


@dataclass(frozen=True)
class _Bounds:
    """A slice along one axis; a bound counts from the start, or from the end if `from_end` says so."""

    start: int
    start_from_end: bool
    stop: int
    stop_from_end: bool
    step: int


@family("Slice")
def cut(p: Rewriter, call: Call) -> list[Fact]:
    """Slice: by stages along time, unchanged along other axes."""
    fact = call.fact(0)
    numbers = call.sliced() if not call.has(3) or call.integers(3) else None
    if numbers is not None and isinstance(fact, Static):
        return [Static((Size.of(len(numbers)),), fact.dtype, numbers)]
    if not isinstance(fact, Stream):
        return _rows(p, call, fact) or p.plain(call)
    if call.node.output[0] in p.cropped:
        p.emitted(call, p.name(call.node.input[0]))
        return [fact]
    starts, stops = call.numbers(1), call.numbers(2)
    if starts is None or stops is None:
        raise RefusedError("has bounds that are not constant")
    axes = call.integers(3, default=range(len(starts)))
    steps = call.integers(4, default=[1] * len(starts))
    if axes is None or steps is None:
        raise RefusedError("has axes that are not constant")
    x = p.name(call.node.input[0])
    found: Stream = fact
    for place, each in enumerate(axes):
        axis = normal(each, fact.rank)
        if axis != fact.axis:
            x, found = _other(p, x, found, axis, (starts[place], stops[place], steps[place]))
    for place, each in enumerate(axes):
        if normal(each, fact.rank) == fact.axis:
            result = _of_time(p, call, x, found, (starts[place], stops[place], steps[place]))
            if not isinstance(result, tuple):
                return [result]
            x, found = result
    p.emitted(call, x)
    return [found]


def _rows(p: Rewriter, call: Call, fact: Fact | None) -> list[Fact] | None:
    """As many rows of a table as there are steps, such as positions: ``table[:, : x.shape[1]]``; None for others.

    If a sequence has more steps than rows, the source fails where it joins them, and this graph fails at the look-up.
    """
    starts, stops = call.numbers(1), call.numbers(2)
    if not isinstance(fact, Static) or fact.shape is None or starts is None or stops is None:
        return None
    axes = call.integers(3, default=range(len(starts)))
    if axes is None or len(axes) != 1 or call.integers(4, default=[1]) != [1]:
        return None
    axis, first, size = normal(axes[0], len(fact.shape)), starts[0].number, stops[0] - starts[0]
    rows = fact.shape[axis].number
    if first is None or first < 0 or rows is None or rows < 2 or not p.lengths.depends(size):
        return None
    places = Places(0, 1, np.array([first]))
    x, steps = p.numbered(Static((size,), np.dtype(np.int64), places=places), places)
    p.require_sized(size, steps.count)
    p.table_rows.append((steps.count, rows - first))
    g, table = p.graph, p.name(call.node.input[0])
    found = g.add("Gather", table, x, axis=axis)
    # On CUDA a Gather of a missing row gives zeros; a Slice has fewer rows there, and a Split of wrong sizes fails.
    there = g.cut(table, axis, g.cut(x, 0, 0, 1), g.math("Add", g.cut(x, 0, -1, END), 1))
    p.emitted(call, g.add("Split", found, g.length(there, axis), axis=axis))
    return [Stream(with_size(fact.shape, axis, size), fact.dtype, axis, steps.count)]


def _of_time(
    p: Rewriter, call: Call, x: str, f: Stream, bounds: tuple[Size, Size, int]
) -> tuple[str, Stream] | Static | Carry:
    start, stop, step = bounds
    size = f.shape[f.axis]
    if (start.number, step) == (0, 1) and _is_length(size, stop):
        return _as_long(p, x, f, stop)
    return _along_time(p, call, x, f, _bounds(p, f, (start, stop, step)))


def _other(p: Rewriter, x: str, f: Stream, axis: int, bounds: tuple[Size, Size, int]) -> tuple[str, Stream]:
    """A slice along an axis other than time, unchanged."""
    start, stop, step = bounds
    size = f.shape[axis].number
    first, end = start.number, stop.number
    if first is None or end is None:
        raise RefusedError("has bounds that are not constant")
    if size is None:
        if (first, step) != (0, 1) or end < END_OF_AXIS:
            raise RefusedError("cuts a dynamic axis")
        return x, f
    end = max(min(end, END_OF_AXIS), -END_OF_AXIS)
    kept = len(range(*slice(first, end if end > -END_OF_AXIS else None, step).indices(size)))
    g = p.graph
    x = g.add("Slice", x, g.ints(first), g.ints(end), g.ints(axis), g.ints(step))
    return x, replace(f, shape=with_size(f.shape, axis, Size.of(kept)))


def _bounds(p: Rewriter, f: Stream, bounds: tuple[Size, Size, int]) -> _Bounds:
    (start, stop, step), size = bounds, f.shape[f.axis]
    if step < 0:
        raise RefusedError("reverses the steps: needs the whole sequence", "a model without a reverse direction")

    def place(bound: Size) -> tuple[int, bool]:
        """The bound; with few steps, a computed bound may change its sign and count from the other end."""
        if bound.number is not None:
            return bound.number, bound.number < 0
        from_end, from_start = (bound - size).number, (bound + size).number
        if from_start is not None and from_start >= 0:  # x[-y.shape[0]:], where y is that many steps shorter
            p.require_steps(f.count, from_start + 1)
            return from_start, False
        if from_end is None or from_end > 0:
            raise RefusedError("has a bound that depends on the number of steps, other than counting from the end")
        p.require_steps(f.count, -from_end)
        return from_end, True

    first, first_from_end = place(start)
    last, last_from_end = (0, True) if (stop.number or 0) >= END_OF_AXIS else place(stop)
    return _Bounds(first, first_from_end, last, last_from_end, step)


def _is_length(size: Size, stop: Size) -> bool:
    return stop.number is None and (stop - size).number is None and (stop + size).number is None


def _as_long(p: Rewriter, x: str, f: Stream, stop: Size) -> tuple[str, Stream]:
    """As many steps as another value has: padding to a multiple is cut off again."""
    require_plain(f)
    count = p.count_of(stop)
    p.require_sized(stop, count)
    if count.rate != f.count.rate:
        raise RefusedError("is cut to the number of steps of a value with another rate")
    least = p.count(Least((f.count, count)))
    lead = largest_lead(f.count, least)
    x = hold_back(p, x, f, least, lead) if lead else guarded(p, x, f.axis, least)
    return x, f.with_steps(stop, least)


def _along_time(p: Rewriter, call: Call, x: str, f: Stream, bounds: _Bounds) -> tuple[str, Stream] | Static | Carry:
    require_plain(f)
    if (bounds.start, bounds.stop, bounds.step, bounds.start_from_end) == (0, 1, 1, False):
        p.emitted(call, first_step(p, x, f))
        p.arrives(call.node.output[0], f.count)
        return Static(with_size(f.shape, f.axis, ONE), f.dtype)
    if not bounds.stop_from_end:
        raise RefusedError(
            f"takes only steps {bounds.start} to {bounds.stop} of a sequence", "give them an input of their own"
        )
    if bounds.start_from_end:
        if bounds.stop == 0 and bounds.step == 1:
            p.emitted(call, last_step(p, x, f) if bounds.start == -1 else last_steps(p, x, f, -bounds.start))
            return Carry(with_size(f.shape, f.axis, Size.of(-bounds.start)), f.dtype)
        raise RefusedError("starts at a step that is counted from the end of the sequence")
    if bounds.start:
        x, f = drop_start(p, x, f, bounds.start)
    if bounds.stop:
        x, f = drop_end(p, x, f, -bounds.stop)
    if bounds.step > 1:
        x, f = window(p, x, f, 1, bounds.step)
        g = p.graph
        x = g.add("Slice", x, g.ints(0), g.ints(END), g.ints(f.axis), g.ints(bounds.step), hint="every")
    return x, f


@family("Gather")
def gather(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Gather: from a table by a stream of indices, or from a stream along an axis other than time."""
    data, index = call.fact(0), call.fact(1)
    axis = int(call.attributes.get("axis", 0))
    numbers = call.gathered()
    if numbers is not None and isinstance(data, Static) and index is not None:
        return [Static(index.shape, data.dtype, numbers)]
    if isinstance(data, Stream) and isinstance(index, Stream):
        raise RefusedError(
            "selects by indices that vary with time from a value that also varies with time",
            "the sum of windows where they overlap by torch.nn.functional.fold, in place of torch.istft or index_add_",
        )
    if isinstance(data, Stream) and normal(axis, data.rank) == data.axis:
        return [_step(p, call, data, data.axis)]
    if isinstance(index, Stream):
        give_where_none_is_due(p, call.node.input[1], index, 0)
    found = unchanged(p, call)
    if not call.streams and data is not None and index is not None and None not in (data.shape, index.shape):
        shape, at = require_shape(data), normal(axis, len(require_shape(data)))
        return [replace(found[0], shape=(*shape[:at], *require_shape(index), *shape[at + 1 :]))]
    return [replace(found[0], dtype=data.dtype)] if isinstance(index, Stream) and data is not None else found


def _step(p: Rewriter, call: Call, data: Stream, axis: int) -> Static | Carry:
    """The first step or the last; any other step is refused."""
    places = call.integers(1)
    if places is None and call.numbers(1) == (data.shape[axis] - Size.of(1),):
        places = [-1]
    require_plain(data)
    if places not in ([0], [-1]):
        raise RefusedError(*BY_PLACE)
    own = p.name(call.node.input[0])
    x = last_step(p, own, data) if places == [-1] else first_step(p, own, data)
    index_shape = require_shape(call.given[1])
    p.copy(call, [x, p.graph.integers([Size.of(-1)], scalar=index_shape == ())])
    shape = (*data.shape[:axis], *index_shape, *data.shape[axis + 1 :])
    if places == [-1]:
        return Carry(shape, data.dtype)
    p.arrives(call.node.output[0], data.count)
    return Static(shape, data.dtype)


@family("ScatterND")
def scatter(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Replaces rows of the first axis, such as channels, in every step: ``y[:, 2:4] = x`` moves them to that axis."""
    if not call.streams:
        return p.plain(call)
    data, places, rows = (call.fact(place) for place in range(3))
    along_rows = isinstance(places, Static) and places.array is not None and places.array.shape[1:] == (1,)
    if not (along_rows and isinstance(data, Stream) and isinstance(rows, Stream) and data.axis == rows.axis > 0):
        raise RefusedError(*BY_PLACE)
    require_plain(data)
    require_plain(rows)
    return [replace(data, count=copy_aligned(p, call))]


@family("ScatterElements", "Compress", "NonZero", "Unique")
def by_places(p: Rewriter, call: Call) -> list[Fact]:
    """Refuse to select by positions that count from the first step."""
    if not call.streams:
        return p.plain(call)
    raise RefusedError(*BY_PLACE)
