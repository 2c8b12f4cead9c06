"""Concat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...size import Size, normal
from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import OTHER_AXES, Call, Rewriter, family, require_no_carry, require_shape
from ..stages import put_after, put_before
from .unchanged import unchanged


@family("Concat", repeated=True)
def concat(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Along another axis streams meet step by step; along time constant steps come before or after a stream."""
    numbers = call.concatenated()
    if numbers is not None:
        return [Static((Size.of(len(numbers)),), call.given[0].dtype or np.dtype(np.int64), numbers)]
    if any(isinstance(fact, Static) and fact.repeated for fact in call.given):
        if call.streams and normal(int(call.attributes["axis"]), call.streams[0][1].rank) == call.streams[0][1].axis:
            raise RefusedError("puts one sequence after another")
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
        raise RefusedError("puts one sequence after another")
    [(at, found)] = call.streams
    require_no_carry(replace(call, facts=call.facts[:at]))  # after the steps it comes when it is known
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
