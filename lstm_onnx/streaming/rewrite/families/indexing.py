"""Gather: embeddings, channels, the first step and the last."""

from __future__ import annotations

from dataclasses import replace

from ...size import Size
from ..facts import Carry, Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, normal, require_shape
from ..stages import first_step, last_step, require_plain

ENDS = "the first step, x[:, 0], or the last, x[:, -1]"


@family("Gather")
def gather(p: Rewriter, call: Call) -> list[Fact]:
    """From a table by a stream of indices, or from a stream along another axis than time."""
    data, index = call.fact(0), call.fact(1)
    axis = int(call.attributes.get("axis", 0))
    if isinstance(data, Static) and data.numbers is not None and isinstance(index, Static):
        places = call.integers(1)
        if places is not None and all(-len(data.numbers) <= place < len(data.numbers) for place in places):
            numbers = tuple(data.numbers[place] for place in places)
            return [Static(index.shape, data.dtype, numbers)]
    if isinstance(data, Stream) and isinstance(index, Stream):
        raise RefusedError("picks by indices that vary with time from a value that does so too")
    if isinstance(index, Stream):
        if not isinstance(data, Static):
            raise RefusedError("picks from a value that is only known at the last step")
        return [_embedded(p, call, data, index, axis)]
    if not isinstance(data, Stream):
        return p.plain(call)
    axis = normal(axis, data.rank)
    if axis != data.axis:
        shape = require_shape(call.given[1])
        p.copy(call)
        time = data.axis if axis > data.axis else data.axis - 1 + len(shape)
        sizes = (*data.shape[:axis], *shape, *data.shape[axis + 1 :])
        return [replace(data, shape=sizes, axis=time)]
    return [_step(p, call, data, axis)]


def _step(p: Rewriter, call: Call, data: Stream, axis: int) -> Static | Carry:
    """The first step or the last; any other is refused."""
    places = call.integers(1)
    if places is None and call.numbers(1) == (data.shape[axis] - Size.of(1),):
        places = [-1]
    require_plain(data)
    if places not in ([0], [-1]):
        raise RefusedError("picks steps by their place in the sequence", ENDS)
    own = p.name(call.node.input[0])
    x = last_step(p, own, data) if places == [-1] else first_step(p, own, data)
    index_shape = require_shape(call.given[1])
    p.copy(call, [x, p.graph.integers([Size.of(-1)], scalar=index_shape == ())])
    shape = (*data.shape[:axis], *index_shape, *data.shape[axis + 1 :])
    if places == [-1]:
        return Carry(shape, data.dtype)
    p.arrives(call.node.output[0], data.count)
    return Static(shape, data.dtype)


def _embedded(p: Rewriter, call: Call, data: Static, index: Stream, axis: int) -> Stream:
    if data.repeated is not None:
        raise RefusedError("picks from a value of every step")
    table = require_shape(data)
    axis = normal(axis, len(table))
    p.copy(call)
    shape = (*table[:axis], *index.shape, *table[axis + 1 :])
    return replace(index, shape=shape, axis=index.axis + axis, dtype=data.dtype)


@family("GatherElements", "GatherND", "ScatterElements", "ScatterND", "Compress", "NonZero", "Unique")
def by_places(p: Rewriter, call: Call) -> list[Fact]:
    """Picks by places that are counted from the first step."""
    if not call.streams:
        return p.plain(call)
    raise RefusedError("picks steps by their place in the sequence", ENDS)


@family("OneHot")
def one_hot(p: Rewriter, call: Call) -> list[Fact]:
    """A new axis for the classes."""
    fact, depth = call.fact(0), call.integers(1)
    if not isinstance(fact, Stream) or len(call.streams) > 1:
        if call.streams:
            raise RefusedError("has a depth or values that vary with time")
        return p.plain(call)
    if depth is None:
        raise RefusedError("has a depth that is not constant")
    axis = normal(int(call.attributes.get("axis", -1)), fact.rank + 1)
    p.copy(call)
    shape = (*fact.shape[:axis], Size.of(depth[0]), *fact.shape[axis:])
    return [replace(fact, shape=shape, axis=fact.axis + (axis <= fact.axis), dtype=p.output_dtype(call))]
