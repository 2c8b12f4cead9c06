"""Pad: at the start it is what comes first, at the end what comes once the sequence has ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...size import Size
from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family, normal
from ..stages import drop_end, drop_start, mirror, window


@family("Pad")
def pad(p: Rewriter, call: Call) -> list[Fact]:
    """Constant, reflect or edge; negative amounts cut."""
    fact = call.fact(0)
    if not isinstance(fact, Stream):
        return p.plain(call)
    amounts = call.integers(1)
    axes = call.integers(3) if call.has(3) else list(range(fact.rank))
    if amounts is None or axes is None:
        raise RefusedError("pads by an amount that is not constant")
    mode = bytes(call.attributes.get("mode", b"constant")).decode()
    before, after = [0] * fact.rank, [0] * fact.rank
    for place, axis in enumerate(axes):
        before[normal(axis, fact.rank)] = amounts[place]
        after[normal(axis, fact.rank)] = amounts[place + len(axes)]
    fill = _fill(call)
    x, found = p.name(call.node.input[0]), fact
    left, right = before[fact.axis], after[fact.axis]
    before[fact.axis] = after[fact.axis] = 0
    if left < 0:
        x, found = drop_start(p, x, found, -left)
    if right < 0:
        x, found = drop_end(p, x, found, -right)
    if left > 0 or right > 0:
        x, found = _longer(p, (x, found), max(left, 0), max(right, 0), mode, fill)
    if any((*before, *after)):
        value = [p.graph.constant(np.array(fill, p.dtype(fact)))] if mode == "constant" else []
        x = p.graph.add("Pad", x, p.graph.ints(*before, *after), *value, mode=mode)
        sizes = zip(found.shape, before, after, strict=True)
        found = replace(found, shape=tuple(size + Size.of(a + b) for size, a, b in sizes))
    p.emitted(call, x)
    return [found]


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
