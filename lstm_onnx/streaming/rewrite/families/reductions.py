"""Reductions over other axes than time."""

from __future__ import annotations

from dataclasses import replace

from ...size import ONE, Size
from ..facts import Fact, RefusedError, Stream, with_size
from ..rewriter import Call, Rewriter, family, normal

_KINDS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
WHOLE = "a running mean (torch.cumsum), or a mean over a window of steps (AvgPool1d)"


@family(*(f"Reduce{kind}" for kind in _KINDS))
def reduce(p: Rewriter, call: Call) -> list[Fact]:
    """Over the axes of an input or, in older operators, an attribute."""
    fact = call.fact(0)
    if not isinstance(fact, Stream):
        return p.plain(call)
    asked = call.integers(1, "axes")
    if not asked:
        if asked is None and call.has(1):
            raise RefusedError("reduces over axes that are not constant")
        if call.attributes.get("noop_with_empty_axes"):
            p.copy(call)
            return [fact]
        asked = list(range(fact.rank))
    return [_reduced(p, call, fact, [normal(axis, fact.rank) for axis in asked])]


@family("ArgMax", "ArgMin")
def best(p: Rewriter, call: Call) -> list[Fact]:
    """The place of the largest or the smallest."""
    fact = call.fact(0)
    if not isinstance(fact, Stream):
        return p.plain(call)
    found = _reduced(p, call, fact, [normal(int(call.attributes.get("axis", 0)), fact.rank)])
    return [replace(found, dtype=p.output_dtype(call))]


@family("TopK")
def top(p: Rewriter, call: Call) -> list[Fact]:
    """The largest along another axis than time."""
    fact, count = call.fact(0), call.integers(1)
    if not isinstance(fact, Stream):
        return p.plain(call)
    axis = normal(int(call.attributes.get("axis", -1)), fact.rank)
    if axis == fact.axis:
        raise RefusedError("sorts all steps: needs the whole sequence")
    if count is None:
        raise RefusedError("takes a number of entries that is not constant")
    p.copy(call)
    shape = with_size(fact.shape, axis, Size.of(count[0]))
    return [replace(fact, shape=shape, dtype=p.output_dtype(call, place)) for place in range(len(call.node.output))]


def _reduced(p: Rewriter, call: Call, f: Stream, axes: list[int]) -> Stream:
    if f.axis in axes:
        raise RefusedError(
            f"computes {call.op.removeprefix('Reduce').lower()} over all steps: needs the whole sequence", WHOLE
        )
    p.copy(call)
    if call.attributes.get("keepdims", 1):
        return replace(f, shape=tuple(ONE if place in axes else size for place, size in enumerate(f.shape)))
    shape = tuple(size for place, size in enumerate(f.shape) if place not in axes)
    return replace(f, shape=shape, axis=f.axis - sum(place < f.axis for place in axes))
