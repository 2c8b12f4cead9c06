"""Sizes of axes, and arithmetic with them: followed as expressions, never computed in the graph."""

from __future__ import annotations

import numpy as np

from ...size import Size, product
from ..facts import Carry, Fact, Static
from ..rewriter import Call, Rewriter, family, require_shape
from .quotients import divided

_EXACT = {"Add": Size.__add__, "Sub": Size.__sub__, "Mul": Size.__mul__}


@family("Shape", repeated=True)
def shape(p: Rewriter, call: Call) -> list[Fact]:
    """The sizes of the axes."""
    fact = call.fact(0)
    assert fact is not None  # noqa: S101 - Shape has an input
    if fact.shape is None and not isinstance(fact, Carry):
        return p.plain(call)
    sizes = require_shape(fact)
    start, end = call.attributes.get("start", 0), call.attributes.get("end", len(sizes))
    numbers = sizes[slice(start, end)]
    return [Static((Size.of(len(numbers)),), np.dtype(np.int64), numbers)]


@family("Size", repeated=True)
def size(p: Rewriter, call: Call) -> list[Fact]:
    """The product of the sizes."""
    del p
    fact = call.fact(0)
    assert fact is not None  # noqa: S101 - Size has an input
    return [Static((), np.dtype(np.int64), (product(list(require_shape(fact))),))]


def arithmetic(p: Rewriter, call: Call) -> Fact | None:
    """The result of Add, Sub, Mul, Div, Cast and the like on sizes; None where they are none."""
    quotient = divided(p, call)
    if quotient is not None:
        return quotient
    numbers = [call.numbers(place) for place in range(len(call.facts))]
    if not numbers or any(values is None for values in numbers):
        return None
    given = [values for values in numbers if values is not None]
    longest = max(map(len, given))
    if any(len(values) not in (1, longest) for values in given):
        return None
    rows = [values * longest if len(values) == 1 else values for values in given]
    results = []
    for items in zip(*rows, strict=True):
        result = _computed(p, call, list(items))
        if result is None:
            return None
        results.append(result)
    scalar = all(fact.shape == () for fact in call.given)
    dtype = p.inferred(call.node.output[0])[0] or np.dtype(np.int64)
    if dtype.kind not in "iu":
        return None
    return Static(() if scalar else (Size.of(longest),), dtype, tuple(results))


def _computed(p: Rewriter, call: Call, items: list[Size]) -> Size | None:
    if call.op in ("Identity", "Cast"):
        return items[0]
    if call.op == "Neg":
        return -items[0]
    if len(items) != 2:
        return None
    one, two = items
    if call.op in _EXACT:
        return _EXACT[call.op](one, two)
    by = two.number
    if call.op not in ("Div", "Mod") or by is None or by <= 0:
        return None
    if call.op == "Mod":
        return one - p.lengths.floor(one, by) * two
    negative = one.number is not None and one.number < 0  # which ONNX rounds towards zero
    return -p.lengths.floor(-one, by) if negative else p.lengths.floor(one, by)
