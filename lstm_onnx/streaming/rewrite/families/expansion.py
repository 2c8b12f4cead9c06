"""Concat, Expand, and Tile where it does the same as Expand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...size import ONE, Size, normal
from ..errors import RefusedError
from ..facts import Carry, Fact, Fold, Static, Stream
from ..graph import make_node_like
from ..rewriter import OTHER_AXES, TWO_AXES, Call, Rewriter, broadcast, family, require_no_carry, require_shape
from ..stages import put_after, put_before
from .unchanged import unchanged


@family("Expand", repeated=True)
def expand(p: Rewriter, call: Call) -> list[Fact]:
    """Broadcasting to a shape; a value that is the same at every step stays one step."""
    fact, asked = call.fact(0), call.numbers(1)
    if asked is None or fact is None or fact.shape is None:
        if isinstance(fact, Stream) or (isinstance(fact, Static) and fact.repeated):
            raise RefusedError("expands to sizes that are not known")
        return p.plain(call)
    if isinstance(fact, Stream):
        return [_stream(p, call, fact, asked)]
    steps = [place - len(asked) for place, size in enumerate(asked) if p.lengths.depends(size)]
    if isinstance(fact, Carry) and steps:
        raise RefusedError("gives a value of the last step to every step", "a value of each step")
    shape = broadcast([fact.shape, asked])
    if isinstance(fact, Carry):
        p.copy(call)
        return [Carry(shape, fact.dtype)]
    if len(steps) > 1:
        raise RefusedError(TWO_AXES)
    repeated = fact.repeated
    if repeated is not None:
        back = repeated[0] - len(fact.shape)
        if steps not in ([], [back]):
            raise RefusedError(TWO_AXES)
        repeated = (len(shape) + back, repeated[1])
    elif steps:
        if len(fact.shape) >= -steps[0] and fact.shape[steps[0]] != ONE:
            raise RefusedError(f"expands {fact.shape[steps[0]]} steps to all")
        merged = _merged(p, asked[steps[0]])
        if merged is not None:
            return [_each_entry(p, call, replace(merged, shape=shape, dtype=fact.dtype, axis=len(shape) + steps[0]))]
        repeated = (len(shape) + steps[0], p.count_of(asked[steps[0]]))
    wanted = [ONE if p.lengths.depends(size) else size for size in asked]
    p.copy(call, [p.name(call.node.input[0]), p.graph.integers(wanted)])
    return [Static(shape, fact.dtype, fill=fact.fill, repeated=repeated)]


def _merged(p: Rewriter, size: Size) -> Stream | None:
    """A stream in whose axis of this size time is merged with others, such as ``batch*time``; None if there is none."""
    streams = [fact for fact in reversed(p.facts.values()) if isinstance(fact, Stream)]  # the last has the latest steps
    for f in streams:
        if f.fold is not None and f.shape[f.axis] == size:
            return f
    for f in streams:
        rest = size.divided(f.shape[f.axis]) if f.fold is None else None
        if rest is not None and rest.number is None and not p.lengths.depends(rest):
            return replace(f, fold=Fold(rest, ONE))
    return None


def _each_entry(p: Rewriter, call: Call, found: Stream) -> Stream:
    """One value for each entry of an axis in which time is merged with others: they are equal, in whatever order."""
    assert found.fold is not None  # noqa: S101 - the caller's condition
    g = p.graph
    entries = g.math("Mul", g.at_least_one(found.count), g.integers([found.fold.before * found.fold.after]))
    p.copy(call, [p.name(call.node.input[0]), p.target(found.shape, found.axis, entries)])
    return found


@family("Tile")
def tile(p: Rewriter, call: Call) -> Sequence[Fact]:
    """An axis of size 1 that is repeated for every step is expanded: ``label.unsqueeze(1).repeat(1, T, 1)``."""
    times, fact = call.numbers(1), call.fact(0)
    if call.streams or fact is None or times is None:
        return unchanged(p, call)
    if not any(map(p.lengths.depends, times)):
        [result] = p.plain(call)
        if fact.shape is None or len(fact.shape) != len(times):
            return [result]
        return [replace(result, shape=tuple(size * count for size, count in zip(fact.shape, times, strict=True)))]
    if fact.shape is None or any(ONE not in pair for pair in zip(fact.shape, times, strict=True)):
        raise RefusedError("repeats by the number of time steps", "expand")
    node = make_node_like(call.node, list(call.node.input), list(call.node.output))
    node.op_type = "Expand"
    return expand(p, replace(call, node=node))


def _stream(p: Rewriter, call: Call, f: Stream, asked: tuple[Size, ...]) -> Stream:
    shape = broadcast([f.shape, asked])
    axis = len(shape) + f.axis - f.rank
    for place, size in enumerate(shape):
        if place != axis and p.lengths.depends(size):
            raise RefusedError(TWO_AXES)
    at_time = len(asked) + f.axis - f.rank
    wanted = [ONE if place == at_time else size for place, size in enumerate(asked)]
    p.copy(call, [p.name(call.node.input[0]), p.graph.integers(wanted)])
    return replace(f, shape=shape, axis=axis)


@family("Concat", repeated=True)
def concat(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Along another axis, streams are joined step by step; along time, constant steps come before or after a stream."""
    numbers = call.concatenated()
    if numbers is not None:
        return [Static((Size.of(len(numbers)),), call.given[0].dtype or np.dtype(np.int64), numbers)]
    if any(isinstance(fact, Static) and fact.repeated for fact in call.given):
        if call.streams and normal(int(call.attributes["axis"]), call.streams[0][1].rank) == call.streams[0][1].axis:
            raise RefusedError("concatenates sequences")
        call = p.materialized(call)
    if not call.streams:
        return p.plain(call)
    rank = call.streams[0][1].rank
    axis, t = normal(int(call.attributes["axis"]), rank), call.streams[0][1].axis
    if any(fact.axis != t for _, fact in call.streams):
        raise RefusedError(OTHER_AXES)
    if axis == t:
        return [_along_time(p, call)]
    require_no_carry(call)
    for name, fact in zip(call.node.input, call.given, strict=True):
        if not isinstance(fact, Stream):
            raise RefusedError(f"joins time with the {require_shape(fact)[t]} steps of {name}")
    return unchanged(p, call)


def _along_time(p: Rewriter, call: Call) -> Stream:
    if len(call.streams) > 1:
        raise RefusedError("concatenates sequences")
    [(at, found)] = call.streams
    require_no_carry(replace(call, facts=call.facts[:at]))  # after the steps it is fine: it is known by then
    x, t = p.name(call.node.input[at]), found.axis
    for places, put in ((range(at), put_before), (range(at + 1, len(call.facts)), put_after)):
        if not places:
            continue
        shapes = [require_shape(call.given[place]) for place in places]
        sizes = [shape[t].number for shape in shapes]
        if None in sizes:
            raise RefusedError("concatenates an unknown number of steps with a sequence")
        names = [p.name(call.node.input[place]) for place in places]
        if any(call.node.input[place] in p.tainted for place in places):
            raise RefusedError("concatenates a state that the module carries itself with the steps")
        total = sum(size for size in sizes if size is not None)
        if total:
            x, found = put(p, x, found, p.graph.joined(names, t), total)
    p.emitted(call, x)
    return found
