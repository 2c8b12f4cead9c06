"""Concat and Split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...size import ONE, Size
from ..facts import Carry, Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, normal, require_shape
from ..stages import aligned, put_after, put_before
from .elementwise import LAST


@family("Concat", repeated=True)
def concat(p: Rewriter, call: Call) -> list[Fact]:
    """Along another axis streams meet step by step; along time constant steps come before or after a stream."""
    numbers = [call.numbers(place) for place in range(len(call.facts))]
    if all(values is not None for values in numbers):
        joined = tuple(value for values in numbers for value in values or ())
        return [Static((Size.of(len(joined)),), np.dtype(np.int64), joined)]
    if any(isinstance(fact, Static) and fact.repeated for fact in call.given):
        call = _with_repeated(p, call)
    if not call.streams:
        return p.plain(call)
    if any(isinstance(fact, Carry) for fact in call.given):
        raise RefusedError("joins every step with a value that is only known at the last one", LAST)
    rank = call.streams[0][1].rank
    axis, t = normal(int(call.attributes["axis"]), rank), call.streams[0][1].axis
    if any(fact.axis != t for _, fact in call.streams):
        raise RefusedError("joins values that have time on different axes: every step meets every other")
    return [_beside(p, call, axis) if axis != t else _along_time(p, call)]


def _with_repeated(p: Rewriter, call: Call) -> Call:
    """Equal steps are steps again, but where they come before or after a stream of which they have the length."""
    if call.streams:
        t = call.streams[0][1].axis
        axis = normal(int(call.attributes["axis"]), call.streams[0][1].rank)
        if axis == t:
            raise RefusedError("puts one sequence after another")
    return p.materialized(call)


def _beside(p: Rewriter, call: Call, axis: int) -> Stream:
    first = call.streams[0][1]
    t = first.axis
    if len({fact.fold for _, fact in call.streams}) > 1:
        raise RefusedError("joins time with a time axis that holds other axes too")
    names, count = aligned(p, [(p.name(call.node.input[place]), fact) for place, fact in call.streams])
    by_place = dict(zip([place for place, _ in call.streams], names, strict=True))
    total = Size.of(0)
    inputs = []
    for place, fact in enumerate(call.given):
        shape = require_shape(fact)
        total += shape[axis]
        if place in by_place:
            inputs.append(by_place[place])
            continue
        raise RefusedError(f"joins time with the {shape[t]} steps of {call.node.input[place]}")
    p.copy(call, inputs)
    sizes = list(first.shape)
    sizes[axis] = total
    return replace(first, shape=tuple(sizes), count=count)


def _along_time(p: Rewriter, call: Call) -> Stream:
    if len(call.streams) > 1:
        raise RefusedError("puts one sequence after another")
    [(at, found)] = call.streams
    x, t = p.name(call.node.input[at]), found.axis
    for places, put in ((range(at), put_before), (range(at + 1, len(call.facts)), put_after)):
        if not places:
            continue
        shapes = [require_shape(call.given[place]) for place in places]
        sizes = [shape[t].number for shape in shapes]
        if None in sizes:
            raise RefusedError("puts an open number of steps beside a sequence")
        names = [p.name(call.node.input[place]) for place in places]
        if any(call.node.input[place] in p.tainted for place in places):
            raise RefusedError("puts a state that the module carries itself before the steps")
        total = sum(size for size in sizes if size is not None)
        if total:
            x, found = put(p, x, found, p.graph.joined(names, t), total)
    p.emitted(call, x)
    return found


@family("Split")
def split(p: Rewriter, call: Call) -> list[Fact]:
    """Along another axis than time."""
    fact = call.fact(0)
    if not isinstance(fact, Stream):
        if isinstance(fact, Static) and fact.numbers is not None:
            p.name(call.node.input[0])
        return p.plain(call)
    axis = normal(int(call.attributes.get("axis", 0)), fact.rank)
    if axis == fact.axis:
        raise RefusedError("divides the steps of a sequence")
    sizes = call.integers(1, "split")
    if sizes is None:
        size, count = fact.shape[axis].number, len(call.node.output)
        if size is None:
            raise RefusedError("divides an open axis")
        each = -(-size // count)
        sizes = [min(each, size - each * place) for place in range(count)]
    p.copy(call)
    return [
        replace(fact, shape=(*fact.shape[:axis], Size.of(size) if size != 1 else ONE, *fact.shape[axis + 1 :]))
        for size in sizes
    ]
