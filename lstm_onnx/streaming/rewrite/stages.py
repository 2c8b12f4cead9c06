"""Stages that combine steps: each keeps in states what later calls still need from earlier ones.

All take the name and the fact of a stream, and return those of the result.  The tensor of a stream has ``max(n, 1)``
steps in a call with n new ones, so that no operator gets an empty axis.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..size import ONE, Size
from .counts import Count, Gate, Least, Stage, largest_lead, least_input, least_rest
from .errors import FoldedError, RefusedError
from .facts import Stream, with_size
from .graph import END, State
from .rewriter import Call, Rewriter


def real(p: Rewriter, x: str, f: Stream) -> str:
    """Only the steps of this call, possibly none."""
    if p.graph.is_exact(f.count):
        return x
    return p.graph.cut(x, f.axis, 0, p.graph.new(f.count), "new_steps")


def guarded(p: Rewriter, x: str, axis: int, count: Count) -> str:
    """The first ``max(n, 1)`` steps of a tensor that has at least one."""
    if p.graph.is_exact(count):
        return x
    return p.graph.cut(x, axis, 0, p.graph.at_least_one(count))


def give_where_none_is_due(p: Rewriter, value: str, f: Stream, number: int) -> None:
    """Set a stream of integers to this number in calls without new steps: its one step may hold a number that an
    operator rejects, such as a row that a table does not have, or 0 as a divisor."""
    if not p.graph.is_exact(f.count):
        other = p.graph.constant(np.array(number, f.dtype or np.int64))
        p.names[value] = p.graph.add("Where", p.graph.any_new(f.count), p.name(value), other, hint="due")


def require_plain(f: Stream) -> None:
    """Refuse a time axis that is merged with other axes.

    Raises:
        FoldedError: it is.
    """
    if f.fold is not None:
        raise FoldedError(
            "computes a step from several where time is merged with other axes",
            "reshape it so that time has an axis of its own",
        )


def unfolded(p: Rewriter, x: str, f: Stream) -> tuple[str, Stream]:
    """A stream whose time axis holds a known number of entries of each step, as a stream with that many more steps.

    Other streams are returned unchanged.
    """
    times = None if f.fold is None or f.fold.before != ONE else f.fold.after.number
    if times is None:
        return x, f
    count = p.count(Stage(f.count, times))
    if not p.graph.is_exact(f.count):
        x = guarded(p, x, f.axis, count)
    return x, replace(f, count=count, fold=None)


def cache(p: Rewriter, f: Stream, steps: int, fill: float = 0.0, kind: str = "cache") -> State:
    """A state that holds `steps` steps of a stream."""
    require_plain(f)
    return p.graph.state(p.state_name(kind), p.dtype(f), with_size(f.shape, f.axis, Size.of(steps)), fill)


def _held(p: Rewriter, x: str, f: Stream, steps: int, fill: float, kind: str = "cache") -> str:
    """The last `steps` steps before this call, followed by those of this call; the cache keeps the last of them."""
    if not steps:
        return real(p, x, f)
    state = cache(p, f, steps, fill, kind)
    both = p.graph.joined([state.name, real(p, x, f)], f.axis, "steps")
    p.graph.feed(state, p.graph.cut(both, f.axis, -steps, END, "kept"))
    return both


def window(
    p: Rewriter, x: str, f: Stream, kernel: int, stride: int = 1, left: int = 0, right: int = 0, fill: float = 0.0
) -> tuple[str, Stream]:
    """The input of an operator that computes one step from `kernel` steps, every `stride` steps; and its result.

    Padding at the start is the cache's initial content.  The result has the shape of its input except along time.
    """
    require_plain(f)
    if left < 0 or right < 0:
        raise RefusedError("negative padding of a window")
    size = f.shape[f.axis] + Size.of(left + right - kernel)
    size = p.lengths.floor(size, stride) + Size.of(1)
    if kernel == stride == 1 and not left and not right:
        return x, f
    count = p.count(Stage(f.count, 1, left + stride - kernel, right, stride))
    g = p.graph
    if g.steady:  # the cache holds as many steps before each call as padding before the first
        return _held(p, x, f, left, fill), f.with_steps(size, count)
    capacity = max(left, kernel - 1)
    held = _held(p, x, f, capacity, fill)
    full = left == kernel - 1 and stride == 1  # this many steps are there before every call, also the first
    if full and g.is_exact(f.count) and g.is_exact(count):
        return held, f.with_steps(size, count)
    start: int | str = 0
    if not full:
        # Below 0 where a stride larger than the kernel skips steps that have not come yet.
        given = g.math("Sub", g.before(f.count), g.math("Mul", g.before(count), stride))
        start = g.math("Sub", capacity - left, given)
    span = g.math("Add", g.math("Mul", g.math("Sub", g.at_least_one(count), 1), stride), kernel)
    # Enough for the padding at the end, and for one window in a call without a step.
    held = g.padded(held, f.axis, f.rank, right + max(kernel, stride), fill, p.dtype(f))
    return g.cut(held, f.axis, start, g.math("Add", start, span), "window"), f.with_steps(size, count)


def hold_back(p: Rewriter, x: str, f: Stream, count: Count, steps: int, kind: str = "cache") -> str:
    """The steps of a stream up to `count`, which is at most `steps` behind; the cache holds the others back."""
    g = p.graph
    held = _held(p, x, f, steps, 0.0, kind)
    waiting = g.math("Sub", g.before(f.count), g.before(count))
    start = g.math("Sub", steps, waiting)
    last = g.math("Add", steps - 1, g.new(f.count))  # without a step, any step will do
    start = g.math("Min", start, last)
    return g.cut(held, f.axis, start, g.math("Add", start, g.at_least_one(count)), "due")


def drop_end(p: Rewriter, x: str, f: Stream, steps: int) -> tuple[str, Stream]:
    """All but the last steps of the sequence: each waits until that many more have come.

    Steps that come only at the end of the sequence need not wait.
    """
    require_plain(f)
    late = min(steps, least_rest(f.count))
    count = p.count(Stage(f.count, 1, late - steps, -late))
    x = hold_back(p, x, f, count, steps - late) if late < steps else guarded(p, x, f.axis, count)
    return x, f.with_steps(f.shape[f.axis] - Size.of(steps), count)


def drop_start(p: Rewriter, x: str, f: Stream, steps: int) -> tuple[str, Stream]:
    """All but the first steps of the sequence."""
    require_plain(f)
    g = p.graph
    count = p.count(Stage(f.count, 1, -steps))
    start = g.math("Sub", g.new(f.count), g.new(count))
    start = g.math("Min", start, g.math("Sub", g.at_least_one(f.count), 1))
    x = g.cut(x, f.axis, start, g.math("Add", start, g.at_least_one(count)), "kept")
    return x, f.with_steps(f.shape[f.axis] - Size.of(steps), count)


def put_before(p: Rewriter, x: str, f: Stream, prefix: str, steps: int) -> tuple[str, Stream]:
    """The stream with the `steps` steps of `prefix` before its first step."""
    require_plain(f)
    g = p.graph
    count = p.count(Stage(f.count, 1, steps))
    first = g.math("Mul", g.starts(), steps)
    both = g.joined([g.cut(prefix, f.axis, 0, first), x], f.axis, "with_first")
    return guarded(p, both, f.axis, count), f.with_steps(f.shape[f.axis] + Size.of(steps), count)


def put_after(p: Rewriter, x: str, f: Stream, suffix: str, steps: int) -> tuple[str, Stream]:
    """The stream with the `steps` steps of `suffix` after its last step."""
    require_plain(f)
    count = p.count(Stage(f.count, 1, 0, steps))
    both = p.graph.joined([real(p, x, f), suffix], f.axis, "with_last")
    return guarded(p, both, f.axis, count), f.with_steps(f.shape[f.axis] + Size.of(steps), count)


def mirror(p: Rewriter, x: str, f: Stream, left: int, right: int, mode: str) -> tuple[str, Stream]:
    """Padding with the sequence's own steps: mode "reflect" or "edge"."""
    require_plain(f)
    p.require_steps(f.count, max(left, right) + 1 if mode == "reflect" else 1)
    if right:
        x, f = _mirror_end(p, x, f, right, mode)
    if left:
        x, f = _mirror_start(p, x, f, left, mode)
    return x, f


def _mirror_end(p: Rewriter, x: str, f: Stream, right: int, mode: str) -> tuple[str, Stream]:
    g = p.graph
    keep = right + 1 if mode == "reflect" else 1
    tail = _held(p, x, f, keep, 0.0, "tail")
    if mode == "reflect":
        suffix = g.add("Slice", tail, g.ints(-2), g.ints(-right - 2), g.ints(f.axis), g.ints(-1))
        # Slice also counts its stop from the end; the steps are at -2, -3, ... -right - 1.
    else:
        suffix = g.joined([g.cut(tail, f.axis, -1, END)] * right, f.axis)
    return put_after(p, x, f, suffix, right)


def _mirror_start(p: Rewriter, x: str, f: Stream, left: int, mode: str) -> tuple[str, Stream]:
    """There are no steps until the mirrored ones have come."""
    g = p.graph
    need = left + 1 if mode == "reflect" else 1
    count = p.count(Gate(f.count, need, left))
    size = f.shape[f.axis] + Size.of(left)
    held = _held(p, x, f, need - 1, 0.0)
    open_before = g.math("Min", g.before(count), 1)
    waiting = g.math("Mul", g.before(f.count), g.math("Sub", 1, open_before))
    start = g.math("Sub", need - 1, waiting)
    held = g.padded(held, f.axis, f.rank, need, 0.0, p.dtype(f))
    places = np.arange(left, 0, -1) if mode == "reflect" else np.zeros(left, np.int64)
    at = g.math("Add", start, g.constant(places.astype(np.int64), "places"))
    prefix = g.add("Gather", held, at, axis=f.axis)
    opens = g.math("Mul", g.math("Sub", 1, open_before), g.math("Min", g.new(count), 1))
    first = g.math("Mul", opens, left)
    both = g.joined([g.cut(prefix, f.axis, 0, first), g.cut(held, f.axis, start, END)], f.axis, "with_first")
    return guarded(p, both, f.axis, count), f.with_steps(size, count)


def last_step(p: Rewriter, x: str, f: Stream) -> str:
    """The last step so far; zeros before the first."""
    require_plain(f)
    p.require_steps(f.count)
    if p.graph.is_exact(f.count):
        return p.graph.cut(x, f.axis, -1, END, "last")
    return p.graph.cut(_held(p, x, f, 1, 0.0, "last_step"), f.axis, -1, END, "last")


def first_step(p: Rewriter, x: str, f: Stream) -> str:
    """The first step of the sequence, available from the call that has it."""
    g, state = p.graph, cache(p, f, 1, kind="first_step")
    p.require_steps(f.count)
    p.settled = max(p.settled, least_input(f.count, 1))
    begun = g.add("Greater", g.math("Min", g.before(f.count), 1), g.ints(0), hint="begun")
    value = g.add("Where", begun, state.name, g.cut(x, f.axis, 0, 1), hint="first")
    g.feed(state, value)
    return value


def last_steps(p: Rewriter, x: str, f: Stream, steps: int) -> str:
    """The last steps so far, if every sequence has that many, however short it is."""
    if f.count.total(1) < steps:
        raise RefusedError(f"returns its last {steps} steps, and a short sequence has fewer")
    return p.graph.cut(_held(p, x, f, steps, 0.0, "last_steps"), f.axis, -steps, END, "last")


def aligned(p: Rewriter, items: list[tuple[str, Stream]]) -> tuple[list[str], Count]:
    """Align streams that are joined step by step: those that are ahead wait for the others.

    Returns:
        Their names, and the count that all of them have now.
    """
    counts = list(dict.fromkeys(f.count for _, f in items))
    if len(counts) == 1:
        return [x for x, _ in items], counts[0]
    p.require_equal_totals(counts)
    count = p.count(Least(tuple(counts)))
    if p.graph.steady:
        return [x for x, _ in items], count
    names = []
    for x, f in items:
        if f.count == count:
            names.append(x)
            continue
        if f.fold is not None:
            raise FoldedError("joins streams of different delays where time is merged with other axes")
        lead = largest_lead(f.count, count)
        names.append(hold_back(p, x, f, count, lead, "wait") if lead else x)
    return names, count


def require_one_fold(call: Call) -> None:
    """Refuse to join streams with different axes in their time axes (FoldedError)."""
    if len({fact.fold for _, fact in call.streams}) > 1:
        raise FoldedError("joins time with a time axis that is merged with other axes")


def copy_aligned(p: Rewriter, call: Call) -> Count:
    """Emit a node that joins its streams step by step; returns the count that all of them have now."""
    require_one_fold(call)
    names, count = aligned(p, [(p.name(call.node.input[place]), fact) for place, fact in call.streams])
    inputs = p.inputs(call)
    for (place, _), name in zip(call.streams, names, strict=True):
        inputs[place] = name
    p.copy(call, inputs)
    return count
