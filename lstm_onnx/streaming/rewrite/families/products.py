"""Matrix products: a product with a weight keeps steps apart."""

from __future__ import annotations

from ...size import ONE, Size
from ..facts import Carry, Fact, RefusedError, Shape, Static, Stream
from ..rewriter import Call, Rewriter, broadcast, family, require_no_carry, require_shape
from ..stages import copy_aligned

EVERY = "makes every step meet every other (attention): needs the whole sequence"


@family("MatMul", "MatMulInteger")
def matmul(p: Rewriter, call: Call) -> list[Fact]:
    """``(..., n, k) @ (..., k, m)``."""
    if not call.streams:
        return p.plain(call)
    require_no_carry(call)
    left, right = require_shape(call.given[0]), require_shape(call.given[1])
    if len(left) < 2 or len(right) < 2:
        return [_vector(p, call, left, right)]
    backs = {}
    for place, fact in call.streams:
        if place > 1:
            raise RefusedError("has a zero point that varies with time")
        back = fact.axis - fact.rank
        if back == (-1 if place == 0 else -2):
            raise RefusedError("sums over all steps: needs the whole sequence", "torch.cumsum, or a convolution")
        backs[place] = back
    if len(backs) == 2 and (len(set(backs.values())) > 1 or next(iter(backs.values())) > -3):
        raise RefusedError(EVERY)
    back = next(iter(backs.values()))
    other = call.given[1 - next(iter(backs))] if len(backs) == 1 else None
    if other is not None and back <= -3:
        shape = require_shape(other)
        if len(shape) >= -back and shape[back] != ONE:
            raise RefusedError(f"joins time with the {shape[back]} steps of another value")
    count = copy_aligned(p, call)
    shape = (*broadcast([left[:-2], right[:-2]]), left[-2], right[-1])
    fold = call.streams[0][1].fold
    return [Stream(shape, p.output_dtype(call), len(shape) + back, count, fold)]


def _vector(p: Rewriter, call: Call, left: Shape, right: Shape) -> Stream:
    """A product with a vector, which loses an axis."""
    [(place, fact)] = call.streams if len(call.streams) == 1 else [(1, call.streams[0][1])]
    if place != 0 or len(right) != 1 or not isinstance(call.given[1], Static):
        raise RefusedError("is a product with a vector that varies with time")
    if fact.axis == fact.rank - 1:
        raise RefusedError("sums over all steps: needs the whole sequence", "torch.cumsum, or a convolution")
    p.copy(call)
    return Stream(left[:-1], p.output_dtype(call), fact.axis, fact.count, fact.fold)


@family("Gemm")
def gemm(p: Rewriter, call: Call) -> list[Fact]:
    """``(n, k) @ (k, m)``, either transposed, plus a bias."""
    if not call.streams:
        return p.plain(call)
    if len(call.streams) > 1 or any(isinstance(fact, Carry) for fact in call.given) or call.streams[0][0] != 0:
        raise RefusedError("is a product of two values that vary with time, or adds one")
    [(_, fact)] = call.streams
    transposed = bool(call.attributes.get("transA", 0))
    if fact.axis != (1 if transposed else 0):
        raise RefusedError("sums over all steps: needs the whole sequence", "torch.cumsum, or a convolution")
    if call.has(2):
        bias = require_shape(call.given[2])
        if len(bias) == 2 and bias[0] != ONE:
            raise RefusedError(f"joins time with the {bias[0]} steps of another value")
    weight = require_shape(call.given[1])
    width: Size = weight[0] if call.attributes.get("transB", 0) else weight[1]
    p.copy(call)
    return [Stream((fact.shape[fact.axis], width), p.output_dtype(call), 0, fact.count, fact.fold)]


@family("Einsum")
def einsum(p: Rewriter, call: Call) -> list[Fact]:
    """By its letters: time keeps its letter in all streams and in the result."""
    if not call.streams:
        return p.plain(call)
    require_no_carry(call)
    equation = bytes(call.attributes.get("equation", b"")).decode().replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not arrow or any(len(set(term)) != len(term) for term in terms):
        raise RefusedError(f"is an Einsum of a kind that is not followed ({equation})")
    letters = {terms[place][fact.axis] for place, fact in call.streams}
    letter = next(iter(letters))
    if len(letters) > 1:
        raise RefusedError(EVERY)
    if letter not in result:
        raise RefusedError("sums over all steps: needs the whole sequence", "torch.cumsum, or a convolution")
    if any(letter in term for place, term in enumerate(terms) if place not in dict(call.streams)):
        raise RefusedError("joins time with a fixed number of steps")
    if any(fact.fold is not None for _, fact in call.streams):
        raise RefusedError("joins time with a time axis that holds other axes too")
    count = copy_aligned(p, call)
    sizes = {
        name: size for term, fact in zip(terms, call.given, strict=True)
        for name, size in zip(term, require_shape(fact), strict=True) if size != ONE
    }  # fmt: skip
    shape = tuple(sizes.get(name, ONE) for name in result)
    return [Stream(shape, p.output_dtype(call), result.index(letter), count)]
