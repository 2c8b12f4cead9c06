"""Matrix products: steps stay independent unless the summed axis is dynamic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..fact import Axis, Fact, axis_of, join, length, open_names
from ..node import Call, operator
from ..size import Size
from .elementwise import broadcast, one_axis, require_steps_alone

_SUMS = "sums over the steps"
PAIRS = "computes with every pair of steps"


@operator("MatMul", "MatMulInteger", "QLinearMatMul")
def matmul(call: Call) -> list[Fact]:
    """MatMul, as numpy's; zero points and scales must be constant."""
    right = 3 if call.op == "QLinearMatMul" else 1
    return [multiplied(call, call.fact(0), call.fact(right))]


@operator("MatMulNBits")
def matmul_bits(call: Call) -> list[Fact]:
    """A product with a packed weight of N outputs."""
    wide = Fact(
        (axis_of(Size.of(int(call.attributes.get("K", 1)))), axis_of(Size.of(int(call.attributes.get("N", 1)))))
    )
    return [multiplied(call, call.fact(0), wide)]


@operator("Gemm")
def gemm(call: Call) -> list[Fact]:
    """Gemm: a matrix product plus a bias."""
    sides = []
    for index, name in enumerate(("transA", "transB")):
        fact = call.fact(index)
        turned = bool(call.attributes.get(name, 0)) and fact.axes is not None and fact.rank == 2
        sides.append(replace(fact, axes=(fact.axes or ())[::-1]) if turned else fact)
    result = multiplied(call, *sides)
    if not call.has(2):
        return [result]
    facts = [result, call.fact(2)]
    total = replace(join(facts), axes=broadcast(call, facts), spans=result.open)
    require_steps_alone(call, facts, total)
    return [total]


def multiplied(call: Call, left: Fact, right: Fact) -> Fact:
    """The fact of a matrix product."""
    facts = [left, right]
    joined = join(facts)
    spans = left.open | right.open
    if left.axes is None or right.axes is None or not left.rank or not right.rank:
        if joined.varies:
            call.meet(spans, _SUMS)
        return replace(joined, spans=spans)
    summed = (left.axes[-1], right.axes[-2] if right.rank > 1 else right.axes[0])
    if joined.varies:
        for axis in summed:
            call.meet(length(axis).names, _SUMS)
    rows: tuple[Axis, ...] = left.axes[-2:-1]
    columns: tuple[Axis, ...] = right.axes[-1:] if right.rank > 1 else ()
    outer = broadcast(call, [Fact(left.axes[:-2]), Fact(right.axes[:-2])]) or ()
    result = replace(joined, axes=(*outer, *rows, *columns))
    _require_one_axis(call, result)
    require_steps_alone(call, facts, result)
    return result


def _require_one_axis(call: Call, result: Fact) -> None:
    """Record a dynamic axis that occurs twice in a product: every step is paired with every other."""
    seen: set[str] = set()
    for axis in result.axes or ():
        names = call.findings.first_names(length(axis).names)
        call.meet(names & seen, PAIRS)
        seen |= names


@operator("Einsum")
def einsum(call: Call) -> list[Fact]:
    """Einsum, in which each axis has a letter."""
    equation = call.attributes.get("equation", b"")
    text = (equation.decode("utf-8", "replace") if isinstance(equation, bytes) else str(equation)).replace(" ", "")
    facts = call.given
    joined = join(facts)
    spans = open_names(facts)
    terms, arrow, result = text.partition("->")
    letters, result = _without_ellipsis(terms.split(","), result, facts)
    known = all(fact.axes is not None and fact.rank == len(term) for fact, term in zip(facts, letters, strict=False))
    if not arrow or len(letters) != len(facts) or not known:
        call.meet(spans if joined.varies else (), "is an Einsum that cannot be followed")
        return [replace(joined, spans=spans)]
    axes = _letters(call, letters, facts)
    for letter, axis in axes.items():
        if letter not in result:
            call.meet(length(axis).names if joined.varies else (), _SUMS)
    found = replace(joined, axes=tuple(axes.get(letter, ()) for letter in result))
    _require_one_axis(call, found)
    require_steps_alone(call, facts, found)
    return [found]


def _without_ellipsis(terms: Sequence[str], result: str, facts: Sequence[Fact]) -> tuple[list[str], str]:
    """The terms and the result with a digit for each axis of an ellipsis, which in ONNX has the same axes in all."""
    more = [fact.rank - len(term) + 3 for term, fact in zip(terms, facts, strict=False) if "..." in term]
    digits = "0123456789"[: max(more, default=0)]
    return [term.replace("...", digits) for term in terms], result.replace("...", digits)


def _letters(call: Call, letters: Sequence[str], facts: Sequence[Fact]) -> dict[str, Axis]:
    axes: dict[str, list[Axis]] = {}
    for term, fact in zip(letters, facts, strict=True):
        for letter, axis in zip(term, fact.axes or (), strict=True):
            axes.setdefault(letter, []).append(axis)
    return {letter: one_axis(call, own) for letter, own in axes.items()}
