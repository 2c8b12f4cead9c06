"""STFT: each frame is a window of steps."""

from __future__ import annotations

from dataclasses import replace

from ...size import Size
from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import Call, Rewriter, family
from ..stages import window


@family("STFT")
def frames(p: Rewriter, call: Call) -> list[Fact]:
    """``(batch, time, 1)`` or, complex, ``(batch, time, 2)`` to ``(batch, frames, bins, 2)``."""
    f, steps, lengths = call.fact(0), call.integers(1), call.integers(3) if call.has(3) else None
    if any(not isinstance(other, Static) for other in call.given[1:]):
        raise RefusedError("has a window that varies with time")
    if not isinstance(f, Stream):
        return p.plain(call)
    if f.axis != 1:
        raise RefusedError("has time for another axis than that of its samples")
    shape = call.fact(2).shape if call.has(2) else None  # type: ignore[union-attr]
    number = lengths[0] if lengths else shape[0].number if shape else None
    if steps is None or number is None:
        raise RefusedError("has frames of a length that is not constant")
    x, found = window(p, p.name(call.node.input[0]), f, number, steps[0])
    p.copy(call, [x, *(p.name(name) if name else "" for name in call.node.input[1:])])
    bins = number // 2 + 1 if call.attributes.get("onesided", 1) else number
    sizes = (f.shape[0], found.shape[1], Size.of(bins), Size.of(2))
    return [replace(found, shape=sizes, dtype=p.output_dtype(call))]
