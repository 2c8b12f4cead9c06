"""Pad: padding at the start comes before the first step, padding at the end once the sequence has ended."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...size import Size, normal
from ..counts import Least, Stage
from ..errors import RefusedError
from ..facts import Fact, Static, Stream
from ..rewriter import Call, Rewriter, family, of_stream
from ..stages import drop_end, drop_start, guarded, mirror, require_plain, window


@dataclass(frozen=True)
class _Completion:
    """Padding at the end up to ``by * ((steps + plus) // by) + more`` steps, such as the next multiple of a stride."""

    by: int
    plus: int
    more: int


@family("Pad")
@of_stream
def pad(p: Rewriter, call: Call, fact: Stream) -> list[Fact]:
    """Pad with mode constant, reflect or edge; negative amounts crop."""
    before, after = _amounts(call, fact)
    size, completion = after[fact.axis], None
    if size.number is None:
        completion = _completion(p, fact, size)
        after[fact.axis] = Size.of(0)
    if any(amount.number is None for amount in (*before, *after)):
        raise RefusedError("pads by an amount that is not constant")
    first, last = ([amount.number or 0 for amount in amounts] for amounts in (before, after))
    mode = bytes(call.attributes.get("mode", b"constant")).decode()
    fill = _fill(call)
    x, found = p.name(call.node.input[0]), fact
    left, right = first[fact.axis], last[fact.axis]
    first[fact.axis] = last[fact.axis] = 0
    if completion is not None:
        x, found = _completed(p, (x, found), completion, mode, fill)
    # Pad before cropping: F.pad(x, (3, -2)) makes two steps of one.
    if left > 0 or right > 0:
        x, found = _longer(p, (x, found), max(left, 0), max(right, 0), mode, fill)
    if left < 0:
        x, found = drop_start(p, x, found, -left)
    if right < 0:
        x, found = drop_end(p, x, found, -right)
    if any((*first, *last)):
        value = [p.graph.constant(np.array(fill, p.dtype(fact)))] if mode == "constant" else []
        x = p.graph.add("Pad", x, p.graph.ints(*first, *last), *value, mode=mode)
        sizes = zip(found.shape, first, last, strict=True)
        found = replace(found, shape=tuple(size + Size.of(a + b) for size, a, b in sizes))
    p.emitted(call, x)
    return [found]


def _amounts(call: Call, fact: Stream) -> tuple[list[Size], list[Size]]:
    """The amounts before and after each axis."""
    amounts = call.numbers(1)
    axes = call.integers(3, default=range(fact.rank))
    if amounts is None or axes is None:
        raise RefusedError("pads by an amount that is not constant")
    before, after = ([Size.of(0)] * fact.rank for _ in range(2))
    for place, axis in enumerate(axes):
        before[normal(axis, fact.rank)] = amounts[place]
        after[normal(axis, fact.rank)] = amounts[place + len(axes)]
    return before, after


def _completion(p: Rewriter, fact: Stream, amount: Size) -> _Completion:
    """The number of steps after padding by an amount that depends on it.

    Raises:
        RefusedError: it is not of the form of `_Completion`, or fewer steps than before.
    """
    steps = fact.shape[fact.axis]
    wanted = steps + amount
    for by in sorted({factor for symbols, factor in wanted.terms if symbols and factor > 1}):
        for plus in range(by):
            more = (wanted - p.lengths.floor(steps + Size.of(plus), by) * Size.of(by)).number
            if more is not None and plus + more >= by - 1:
                return _Completion(by, plus, more)
    raise RefusedError(f"pads by {amount}, which depends on the number of steps", "padding to a multiple of a stride")


def _completed(
    p: Rewriter, stream: tuple[str, Stream], completion: _Completion, mode: str, fill: float
) -> tuple[str, Stream]:
    x, f = stream
    require_plain(f)
    by, plus, more = completion.by, completion.plus, completion.more
    size = p.lengths.floor(f.shape[f.axis] + Size.of(plus), by) * Size.of(by) + Size.of(more)
    if p.graph.steady:  # every chunk is a multiple already, so nothing is left to complete
        count = p.count(Stage(Stage(f.count, by=by), by, more))
        if more:
            raise RefusedError("pads the end of a sequence")
        return x, f.with_steps(size, count)
    x, padded = _longer(p, stream, 0, plus + more, mode, fill)
    complete = Stage(Stage(f.count, 1, plus, 0, by), by, more)
    count = p.count(Least((padded.count, complete)))
    x = guarded(p, x, f.axis, count)
    return x, f.with_steps(size, count)


def _fill(call: Call) -> float:
    if not call.has(2):
        return 0.0
    fact = call.fact(2)
    if not isinstance(fact, Static) or fact.fill is None:
        raise RefusedError("pads with a value that is not constant")
    return fact.fill


def _longer(
    p: Rewriter, stream: tuple[str, Stream], left: int, right: int, mode: str, fill: float
) -> tuple[str, Stream]:
    x, fact = stream
    if mode == "constant":
        return window(p, x, fact, 1, 1, left, right, fill)
    if mode not in ("reflect", "edge"):
        raise RefusedError(f'pads with mode "{mode}", which takes steps from the other end of the sequence')
    return mirror(p, x, fact, left, right, mode)
