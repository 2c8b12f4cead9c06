"""Gather: embeddings, channels, the first step and the last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...size import Size, normal
from ..facts import Carry, Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, require_shape
from ..stages import copy_aligned, first_step, give_where_none_is_due, last_step, require_plain
from .unchanged import BY_PLACE, unchanged


@family("Gather")
def gather(p: Rewriter, call: Call) -> Sequence[Fact]:
    """From a table by a stream of indices, or from a stream along another axis than time."""
    data, index = call.fact(0), call.fact(1)
    axis = int(call.attributes.get("axis", 0))
    numbers = call.gathered()
    if numbers is not None and isinstance(data, Static) and index is not None:
        return [Static(index.shape, data.dtype, numbers)]
    if isinstance(data, Stream) and isinstance(index, Stream):
        raise RefusedError("picks by indices that vary with time from a value that does so too")
    if isinstance(data, Stream) and normal(axis, data.rank) == data.axis:
        return [_step(p, call, data, data.axis)]
    if isinstance(index, Stream):
        give_where_none_is_due(p, call.node.input[1], index, 0)
    found = unchanged(p, call)
    return [replace(found[0], dtype=data.dtype)] if isinstance(index, Stream) and data is not None else found


def _step(p: Rewriter, call: Call, data: Stream, axis: int) -> Static | Carry:
    """The first step or the last; any other is refused."""
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
    """Rows along the first axis, such as channels, replaced in every step: ``y[:, 2:4] = x`` moves them there."""
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
    """Picks by places that are counted from the first step."""
    if not call.streams:
        return p.plain(call)
    raise RefusedError(*BY_PLACE)
