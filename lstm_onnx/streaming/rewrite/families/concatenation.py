"""Concat and Split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...size import Size
from ..facts import Fact, RefusedError, Static, Stream, with_size
from ..rewriter import Call, Rewriter, family, normal, require_no_carry, require_shape
from ..stages import copy_aligned, put_after, put_before


@family("Concat", repeated=True)
def concat(p: Rewriter, call: Call) -> list[Fact]:
    """Along another axis streams meet step by step; along time constant steps come before or after a stream."""
    numbers = [call.numbers(place) for place in range(len(call.facts))]
    if all(values is not None for values in numbers):
        joined = tuple(value for values in numbers for value in values or ())
        return [Static((Size.of(len(joined)),), call.given[0].dtype or np.dtype(np.int64), joined)]
    if any(isinstance(fact, Static) and fact.repeated for fact in call.given):
        if call.streams and normal(int(call.attributes["axis"]), call.streams[0][1].rank) == call.streams[0][1].axis:
            raise RefusedError("puts one sequence after another")
        call = p.materialized(call)
    if not call.streams:
        return p.plain(call)
    require_no_carry(call)
    rank = call.streams[0][1].rank
    axis, t = normal(int(call.attributes["axis"]), rank), call.streams[0][1].axis
    if any(fact.axis != t for _, fact in call.streams):
        raise RefusedError("joins values that have time on different axes: every step meets every other")
    return [_beside(p, call, axis) if axis != t else _along_time(p, call)]


def _beside(p: Rewriter, call: Call, axis: int) -> Stream:
    first = call.streams[0][1]
    total = Size.of(0)
    for name, fact in zip(call.node.input, call.given, strict=True):
        if not isinstance(fact, Stream):
            raise RefusedError(f"joins time with the {require_shape(fact)[first.axis]} steps of {name}")
        total += fact.shape[axis]
    count = copy_aligned(p, call)
    return replace(first, shape=with_size(first.shape, axis, total), count=count)


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
    return [replace(fact, shape=with_size(fact.shape, axis, Size.of(size))) for size in sizes]
