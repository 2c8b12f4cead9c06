"""Reshape, Flatten, Squeeze, Unsqueeze and Transpose: the time axis is followed through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

from ...size import ONE, Size, product
from ..facts import Carry, Fact, Fold, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, normal, require_shape
from ..stages import require_plain, window


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
def flatten(p: Rewriter, call: Call) -> list[Fact]:
    """To two axes."""
    fact = call.fact(0)
    if not isinstance(fact, Stream):
        return p.plain(call)
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
    """The sizes of a Reshape, with 0 and -1 resolved."""
    keep = not call.attributes.get("allowzero", 0)
    sizes = [
        shape[place] if size.number == 0 and keep and place < len(shape) else size for place, size in enumerate(asked)
    ]
    for place, size in enumerate(sizes):
        if size.number == -1:
            others = product([other for at, other in enumerate(sizes) if at != place])
            whole = product(list(shape))
            exact = whole.divided(others) or _divided(p, whole, others)
            if exact is None:
                raise RefusedError(f"makes an axis of ({whole}) / ({others}) elements")
            sizes[place] = exact
    return sizes


def _divided(p: Rewriter, whole: Size, by: Size) -> Size | None:
    """The quotient by a product of open axes and a number, of which only the number may leave a rest."""
    if len(by.terms) != 1:
        return None
    [(symbols, number)] = by.terms
    rest = whole.divided(Size(frozenset({(symbols, 1)})))
    return p.lengths.floor(rest, number) if rest is not None and number > 0 else None


def _regrouped(p: Rewriter, call: Call, f: Stream, sizes: list[Size]) -> Stream:
    """Where the time axis is among the new ones, and what else is in it."""
    axes = [axis for axis, size in enumerate(sizes) if p.lengths.depends(size)]
    if len(axes) != 1:
        raise RefusedError("makes several axes, or none, of the number of time steps")
    axis = axes[0]
    fold = f.fold or Fold(ONE, ONE)
    steps = _steps(f)
    before = product([*f.shape[: f.axis], fold.before])
    after = product([fold.after, *f.shape[f.axis + 1 :]])
    outer, inner = product(sizes[:axis]), product(sizes[axis + 1 :])
    own_before, own_after = before.divided(outer), after.divided(inner)
    x = p.name(call.node.input[0])
    if own_before is not None and own_after is not None and own_before * steps * own_after == sizes[axis]:
        own = Fold(own_before, own_after)
        result = Stream(tuple(sizes), f.dtype, axis, f.count, None if own == Fold(ONE, ONE) else own)
    else:
        x, result = _stacked(p, x, f, sizes, axis)
    p.emitted(call, p.graph.add("Reshape", x, p.target(sizes, axis)))
    return result


def _steps(f: Stream) -> Size:
    """The number of time steps in a time axis."""
    if f.fold is None:
        return f.shape[f.axis]
    steps = f.shape[f.axis].divided(f.fold.before * f.fold.after)
    if steps is None:
        raise RefusedError("takes apart an axis into which time was reshaped")
    return steps


def _stacked(p: Rewriter, x: str, f: Stream, sizes: list[Size], axis: int) -> tuple[str, Stream]:
    """Several steps become one: ``(batch, time, 4)`` to ``(batch, time // 2, 8)``."""
    require_plain(f)
    inner, after = product(sizes[axis + 1 :]), product(list(f.shape[f.axis + 1 :]))
    times = inner.divided(after)
    number = None if times is None else times.number
    same = product(list(f.shape[: f.axis])) == product(sizes[:axis])
    if number is None or number < 2 or not same or p.lengths.floor(f.shape[f.axis], number) != sizes[axis]:
        raise RefusedError("takes the time axis apart, or makes other steps of its elements")
    x, result = window(p, x, f, number, number)
    p.multiple = lcm(p.multiple, _multiple(f, number))
    return x, Stream(tuple(sizes), f.dtype, axis, result.count)


def _multiple(f: Stream, number: int) -> int:
    """The least k so that every multiple of k steps of the input gives a multiple of `number` steps."""
    limit = f.count.period * number
    start = -(-f.count.settled // limit) * limit
    for k in range(1, limit + 1):
        if limit % k == 0 and all(f.count.total(start + m) % number == 0 for m in range(0, limit, k)):
            return k
    raise RefusedError(f"makes one step of {number}, and no number of steps can be divided so")


@family("Squeeze")
def squeeze(p: Rewriter, call: Call) -> list[Fact]:
    """Axes of size 1 removed."""
    fact = call.fact(0)
    if isinstance(fact, Static) and fact.numbers is not None and len(fact.numbers) == 1:
        return [replace(fact, shape=(), array=None)]
    if fact is None or fact.shape is None:
        return p.plain(call)
    asked = call.integers(1, "axes")
    gone = (
        {place for place, size in enumerate(fact.shape) if size == ONE}
        if asked is None
        else {normal(axis, len(fact.shape)) for axis in asked}
    )
    return _moved(p, call, [place for place in range(len(fact.shape)) if place not in gone])


@family("Unsqueeze")
def unsqueeze(p: Rewriter, call: Call) -> list[Fact]:
    """Axes of size 1 inserted."""
    fact, asked = call.fact(0), call.integers(1, "axes")
    if isinstance(fact, Static) and fact.numbers is not None and fact.shape == ():
        return [replace(fact, shape=(ONE,), array=None)]
    if fact is None or fact.shape is None or asked is None:
        if isinstance(fact, Stream):
            raise RefusedError("inserts axes that are not constant")
        return p.plain(call)
    rank = len(fact.shape) + len(asked)
    new = {normal(axis, rank) for axis in asked}
    own = iter(range(len(fact.shape)))
    return _moved(p, call, [None if place in new else next(own) for place in range(rank)])


@family("Transpose")
def transpose(p: Rewriter, call: Call) -> list[Fact]:
    """Axes in another order."""
    fact = call.fact(0)
    if fact is None or fact.shape is None:
        return p.plain(call)
    rank = len(fact.shape)
    return _moved(p, call, list(call.attributes.get("perm") or range(rank)[::-1]))


def _moved(p: Rewriter, call: Call, order: Sequence[int | None]) -> list[Fact]:
    """The node as it is; `order` has for each axis the one that it was, None for a new one."""
    fact = call.given[0]
    shape = require_shape(fact)
    sizes = tuple(ONE if place is None else shape[place] for place in order)
    if not isinstance(fact, Stream):
        found = p.plain(call)
        if isinstance(fact, Carry):
            return [Carry(sizes, fact.dtype)]
        return [replace(each, shape=sizes, fill=fact.fill) for each in found if isinstance(each, Static)]
    if fact.axis not in order:
        raise RefusedError("removes the time axis")
    p.copy(call)
    return [replace(fact, shape=sizes, axis=list(order).index(fact.axis))]
