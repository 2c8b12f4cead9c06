"""Reshape and Flatten, through which the time axis is followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

from ...operators.shapes import resolved
from ...size import ONE, Size, normal, product
from ..counts import Stage, total_multiple
from ..errors import RefusedError
from ..facts import Carry, Fact, Fold, Static, Stream
from ..lengths import count_by
from ..rewriter import Call, Rewriter, family, of_stream
from ..stages import require_plain, window

_REGROUPS = "splits the time axis, or regroups its elements into other steps"


@family("Reshape")
def reshape(p: Rewriter, call: Call) -> list[Fact]:
    """To sizes that may depend on the batch and on time."""
    fact, asked = call.fact(0), call.numbers(1)
    if isinstance(fact, Static) and fact.numbers is not None and asked is not None and len(asked) <= 1:
        return [replace(fact, shape=() if not asked else (Size.of(len(fact.numbers)),), array=None)]
    if not isinstance(fact, Stream):
        return _still(p, call, fact, asked)
    if asked is None:
        raise RefusedError("reshapes to sizes that are not known")
    return [_regrouped(p, call, fact, _resolved(p, fact.shape, asked, call))]


@family("Flatten")
@of_stream
def flatten(p: Rewriter, call: Call, fact: Stream) -> list[Fact]:
    """Flatten to two axes, which are products of the source's."""
    at = normal(int(call.attributes.get("axis", 1)), fact.rank)
    return [_regrouped(p, call, fact, [product(list(fact.shape[:at])), product(list(fact.shape[at:]))])]


def _still(p: Rewriter, call: Call, fact: Fact | None, asked: Sequence[Size] | None) -> list[Fact]:
    if fact is None or asked is None or fact.shape is None:
        return p.plain(call)
    sizes = tuple(_resolved(p, fact.shape, asked, call))
    found = p.plain(call)
    if isinstance(fact, Carry):
        return [Carry(sizes, fact.dtype)]
    return [replace(each, shape=sizes, fill=fact.fill if isinstance(fact, Static) else None) for each in found
            if isinstance(each, Static)]  # fmt: skip


def _resolved(p: Rewriter, shape: Sequence[Size], asked: Sequence[Size], call: Call) -> list[Size]:
    def quotient(whole: Size, by: Size) -> Size:
        """Divide by a product of dynamic axes and a number; only the number may leave a remainder."""
        symbols, number = by.term or ((), 0)
        rest = whole.divided(Size(frozenset({(symbols, 1)})))
        if rest is None or number <= 0:
            raise RefusedError(f"makes an axis of ({whole}) / ({by}) elements")
        return p.lengths.floor(rest, number)

    return resolved(call, shape, asked, quotient)


def _regrouped(p: Rewriter, call: Call, f: Stream, sizes: list[Size]) -> Stream:
    """The place of the time axis among the new axes, and what else is in it."""
    axes = [axis for axis, size in enumerate(sizes) if p.lengths.depends(size)]
    if len(axes) != 1:
        raise RefusedError("makes several axes, or none, with the number of time steps")
    axis = axes[0]
    fold = f.fold or Fold(ONE, ONE)
    steps = f.steps
    before = product([*f.shape[: f.axis], fold.before])
    after = product([fold.after, *f.shape[f.axis + 1 :]])
    outer, inner = product(sizes[:axis]), product(sizes[axis + 1 :])
    own_before, own_after = before.divided(outer), after.divided(inner)
    x = p.name(call.node.input[0])
    own = None if own_before is None or own_after is None else Fold(own_before, own_after)
    if own is not None and _has_all(p, f, own, sizes[axis]):
        sizes[axis] = own.before * steps * own.after
        result = Stream(tuple(sizes), f.dtype, axis, f.count, None if own == Fold(ONE, ONE) else own)
    else:
        x, result = _stacked(p, x, f, sizes, axis)
    p.emitted(call, p.graph.add("Reshape", x, p.target(sizes, axis)))
    return result


def _has_all(p: Rewriter, f: Stream, fold: Fold, size: Size) -> bool:
    """Whether an axis of this size holds all entries of `fold`: at numbers of steps where it does not, a file fails."""
    if fold.before * f.steps * fold.after == size:
        return True
    times, own = fold.after.number, size.divided(fold.before)
    count = None if times is None or own is None else count_by(p.lengths, own)
    if times is None or count is None or total_multiple([count, Stage(f.count, times)]) is None:
        return False
    p.require_equal_totals([count, Stage(f.count, times)])
    return True


def _stacked(p: Rewriter, x: str, f: Stream, sizes: list[Size], axis: int) -> tuple[str, Stream]:
    """Several steps become one: ``(batch, time, 4)`` to ``(batch, time // 2, 8)``, or ``(batch * time // 2, 2, 4)``."""
    require_plain(f)
    inner, after = product(sizes[axis + 1 :]), product(list(f.shape[f.axis + 1 :]))
    times = inner.divided(after)
    number = None if times is None else times.number
    before = product(list(f.shape[: f.axis])).divided(product(sizes[:axis]))
    steps = None if number is None or number < 2 else p.lengths.floor(f.shape[f.axis], number)
    if number is None or steps is None or before is None:
        raise RefusedError(_REGROUPS)
    # At a number of steps that is no multiple of `number`, -1 may join steps of two sequences.
    if sizes[axis] not in (before * steps, p.lengths.floor(before * f.shape[f.axis], number)):
        raise RefusedError(_REGROUPS)
    sizes[axis] = before * steps
    x, result = window(p, x, f, number, number)
    p.multiple = lcm(p.multiple, _multiple(f, number))
    return x, Stream(tuple(sizes), f.dtype, axis, result.count, None if before == ONE else Fold(before, ONE))


def _multiple(f: Stream, number: int) -> int:
    """The least k such that every multiple of k steps of the input gives a multiple of `number` steps."""
    limit = f.count.period * number
    start = -(-f.count.settled // limit) * limit
    for k in range(1, limit + 1):
        if limit % k == 0 and all(f.count.total(start + m) % number == 0 for m in range(0, limit, k)):
            return k
    raise RefusedError(f"makes one step of {number}, and no number of steps can be divided that way")
