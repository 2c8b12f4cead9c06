"""Operators on each element by itself: streams meet step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...operators.elementwise import COMPARISONS, COPIES, ELEMENTWISE
from ...size import normal
from ..facts import Fact, RefusedError, Static, Stream
from ..rewriter import OTHER_AXES, Call, Rewriter, broadcast, family, require_no_carry, require_shape
from ..stages import give_where_none_is_due
from .shapes import arithmetic
from .unchanged import unchanged


@family(*ELEMENTWISE, *COMPARISONS, *COPIES, "DequantizeLinear", "QuantizeLinear", repeated=True)
def elementwise(p: Rewriter, call: Call) -> Sequence[Fact]:
    """Broadcasting joins axes from the back."""
    sizes = arithmetic(p, call)
    if sizes is not None:
        return [sizes]
    if not call.streams:
        return _without_steps(p, call)
    divisor = call.fact(1)
    if call.op in ("Div", "Mod") and isinstance(divisor, Stream) and (divisor.dtype or np.dtype(bool)).kind in "iu":
        give_where_none_is_due(p, call.node.input[1], divisor, 1)
    backs = {fact.axis - fact.rank for _, fact in call.streams}
    if len(backs) > 1:
        raise RefusedError(OTHER_AXES)
    _, stream = call.streams[0]
    scaled = call.op in ("DequantizeLinear", "QuantizeLinear") and require_shape(call.given[1]) != ()
    if scaled and normal(int(call.attributes.get("axis", 1)), stream.rank) == stream.axis:
        raise RefusedError("has a scale for each step")
    for fact in call.given:
        repeated = fact.repeated if isinstance(fact, Static) else None
        if repeated is not None and require_shape(fact)[repeated[0]] != stream.shape[stream.axis]:
            raise RefusedError("joins sequences of different numbers of steps")
    return unchanged(p, call)


def _without_steps(p: Rewriter, call: Call) -> list[Fact]:
    found = p.plain(call)
    repeated = [fact for fact in call.given if isinstance(fact, Static) and fact.repeated is not None]
    if not all(isinstance(fact, Static) for fact in found):
        if repeated:
            require_no_carry(call)
        return found
    try:
        shape = broadcast([require_shape(fact) for fact in call.given])
    except RefusedError:
        if repeated:
            raise
        shape = None
    place = None
    if repeated and shape is not None:
        places = {len(shape) - len(require_shape(fact)) + fact.repeated[0] for fact in repeated if fact.repeated}
        if len(places) > 1:
            raise RefusedError(OTHER_AXES)
        first = repeated[0].repeated
        assert first is not None  # noqa: S101 - the filter above
        place = (places.pop(), first[1])
    one = call.given[0] if len(call.given) == 1 else None
    fill = one.fill if isinstance(one, Static) and call.op in ("Identity", "Cast") else None
    return [
        replace(fact, shape=shape or fact.shape, repeated=place, fill=fill)
        for fact in found
        if isinstance(fact, Static)
    ]
