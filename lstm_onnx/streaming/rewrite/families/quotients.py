"""Numbers of steps as floats, divided and rounded: ``math.ceil((x.shape[1] - 4) / 2 + 1)``."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ...size import Size
from ..facts import Fact, Static
from ..rewriter import Call, Rewriter

_LARGEST = 2**20
"""The largest divisor that is followed."""


def divided(p: Rewriter, call: Call) -> Static | None:
    """The result of an operator on a number of steps as a float; None where it is another or cannot be followed."""
    if len(call.node.output) != 1 or len(call.facts) not in (1, 2):
        return None
    place = 1 if call.op in ("Add", "Mul") and _quotient(p, call.facts[0]) is None else 0
    fact = call.fact(place)
    found = _quotient(p, fact)
    if found is None or not isinstance(fact, Static) or fact.shape not in ((), (Size.of(1),)):
        return None
    dtype = p.inferred(call.node.output[0])[0] or fact.dtype
    if dtype is None:
        return None
    if dtype.kind in "iu":  # what was rounded is a number of steps again
        whole = call.op == "Cast" and fact.quotient is not None and found[1] == 1
        return Static(fact.shape, dtype, (found[0],)) if whole else None
    found = _result(p, call, place, *found) if dtype.kind == "f" else None
    return None if found is None else Static(fact.shape, dtype, quotient=found)


def _quotient(p: Rewriter, fact: Fact | None) -> tuple[Size, int] | None:
    if not isinstance(fact, Static):
        return None
    if fact.numbers is not None and len(fact.numbers) == 1 and p.lengths.depends(fact.numbers[0]):
        return fact.numbers[0], 1
    return fact.quotient


def _result(p: Rewriter, call: Call, place: int, size: Size, by: int) -> tuple[Size, int] | None:
    if call.op in ("Cast", "Identity"):
        return size, by
    if call.op == "Ceil":
        return p.lengths.floor(size + Size.of(by - 1), by), 1
    if call.op == "Floor":
        return p.lengths.floor(size, by), 1
    array = call.constant(1 - place) if len(call.facts) == 2 else None
    if array is None or array.shape not in ((), (1,)) or not np.isfinite(array).all():
        return None
    number = Fraction(float(array.reshape(-1)[0]))
    if call.op in ("Add", "Sub"):
        more = (number if call.op == "Add" else -number) * by
        return (size + Size.of(int(more)), by) if more.denominator == 1 else None
    if call.op not in ("Mul", "Div") or number <= 0:
        return None
    times = number if call.op == "Mul" else 1 / number
    if max(times.numerator, times.denominator * by) > _LARGEST:
        return None
    return size * Size.of(times.numerator), by * times.denominator
