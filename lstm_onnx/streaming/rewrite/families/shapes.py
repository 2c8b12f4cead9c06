"""Sizes of axes and arithmetic with them, which are followed as expressions and never computed in the graph.

That includes numbers of steps that are divided and rounded as floats: ``math.ceil((x.shape[1] - 4) / 2 + 1)``.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ...operators.elementwise import least
from ...size import Size, product
from ..facts import Carry, Fact, Static
from ..rewriter import Call, Rewriter, family, require_shape, stored

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
    """The result of Add, Sub, Mul, Div, Cast and the like on sizes; None where the operands are not sizes."""
    quotient = divided(p, call)
    if quotient is not None:
        return quotient
    if call.op == "Where":
        return _chosen(p, call)
    operands = call.operands()
    if operands is None:
        return None
    if call.op == "Equal":
        return _compared(p, call, operands)
    computed = [_computed(p, call, items) for items in operands]
    results = [size for size in computed if size is not None]
    if len(results) < len(computed):
        return None
    scalar = all(fact.shape == () for fact in call.given)
    dtype = p.inferred(call.node.output[0])[0] or np.dtype(np.int64)
    if dtype.kind not in "iu":
        return None
    return Static(() if scalar else (Size.of(len(results)),), dtype, tuple(results))


def _compared(p: Rewriter, call: Call, operands: list[tuple[Size, ...]]) -> Fact | None:
    """Which sizes are equal, such as to the -1 of ``Tensor.expand``; None where that depends on the sizes."""
    found = []
    for one, two in operands:
        rest = (one - two).number
        apart = any(a.is_product and b.number is not None and b.number <= 0 for a, b in ((one, two), (two, one)))
        if rest is None and not apart:
            return None
        found.append(rest == 0)
    array = np.array(found)
    if all(fact.shape == () for fact in call.given):
        array = array.reshape(())
    p.emitted(call, p.graph.constant(array, "alike"))
    return stored(array)


def _chosen(p: Rewriter, call: Call) -> Fact | None:
    """Where on sizes, by known conditions."""
    which, one, two = call.constant(0), call.numbers(1), call.numbers(2)
    if which is None or which.ndim > 1 or one is None or two is None:
        return None
    count = max(which.size, len(one), len(two))
    if any(size not in (1, count) for size in (which.size, len(one), len(two))):
        return None
    parts = zip(*(list(part) * (count // len(part)) for part in (which.reshape(-1), one, two)), strict=True)
    dtype = p.inferred(call.node.output[0])[0] or np.dtype(np.int64)
    scalar = all(fact.shape == () for fact in call.given)
    return Static(() if scalar else (Size.of(count),), dtype, tuple(a if yes else b for yes, a, b in parts))


def _computed(p: Rewriter, call: Call, items: tuple[Size, ...]) -> Size | None:
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
    if call.op in ("Max", "Min"):
        return _extreme(p, call.op, one, two) or _extreme(p, call.op, two, one)
    if call.op not in ("Div", "Mod"):
        return None
    exact = one.divided(two) if by is None else None
    if exact is not None and _is_no_less(p, two, 1):
        return exact if call.op == "Div" else Size.of(0)
    if by is None or by <= 0:
        return None
    if call.op == "Mod":
        return one - p.lengths.floor(one, by) * two
    negative = one.number is not None and one.number < 0  # ONNX rounds its quotient towards zero
    return -p.lengths.floor(-one, by) if negative else p.lengths.floor(one, by)


def _extreme(p: Rewriter, op: str, size: Size, other: Size) -> Size | None:
    """Max or Min, where the second size is known to be the lesser."""
    found = least(size, other) if op == "Min" else None
    if found is not None or other.number is None or not _is_no_less(p, size, other.number):
        return found
    return size if op == "Max" else other


def _is_no_less(p: Rewriter, size: Size, number: int) -> bool:
    """Whether a size is never less than a number, but for a few short sequences, which are then refused."""
    steps = p.lengths.steps_for(size, number)
    if steps is not None:
        p.require_more_steps_than(steps - 1)
    return steps is not None


_LARGEST = 2**20
"""The largest divisor that is followed."""


def divided(p: Rewriter, call: Call) -> Static | None:
    """The result of an operator on a number of steps as a float; None where it is anything else."""
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
    if dtype.kind in "iu":  # a rounded float is a number of steps again
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
