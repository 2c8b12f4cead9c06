"""Reductions, normalisations, softmax, cumulative sums and sorting, which combine the entries along their axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..fact import Fact, axis_of, join, length
from ..node import Call, operator
from ..size import Size, normal

_KINDS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
REDUCTIONS = tuple(f"Reduce{kind}" for kind in _KINDS)
SOFTMAXES = ("Softmax", "LogSoftmax", "Hardmax")
_NORMS = ("Layer", "RMS", "SimplifiedLayer", "Instance", "Group", "Lp", "MeanVariance")
NORMALIZATIONS = (*(f"{kind}Normalization" for kind in _NORMS), "LRN")
_OVER = "goes over all steps of a call"


def _meet(call: Call, fact: Fact, axes: Iterable[int]) -> None:
    """Record the dynamic axes among `axes`, also for constant values: their sum depends on their number."""
    if fact.axes is None:
        call.meet(fact.open, _OVER)
        return
    for axis in axes:
        if -fact.rank <= axis < fact.rank:
            call.meet(length(fact.axes[axis]).names, _OVER)


@operator(*REDUCTIONS)
def reduced(call: Call) -> list[Fact]:
    """A reduction over the given axes, or all."""
    fact = call.fact(0)
    asked = call.integers(1, "axes")
    if not asked and call.attributes.get("noop_with_empty_axes", 0):
        return [fact]
    if call.has(1) and asked is None:
        call.meet(fact.open, _OVER)
        return [replace(fact.without_axes(), sized=fact.depends_on_sizes)]
    return [_without(call, fact, asked or list(range(fact.rank)))]


@operator("ArgMax", "ArgMin")
def arg_reduced(call: Call) -> list[Fact]:
    """ArgMax and ArgMin along one axis."""
    return [_without(call, call.fact(0), [call.attributes.get("axis", 0)])]


def _without(call: Call, fact: Fact, asked: list[int]) -> Fact:
    _meet(call, fact, asked)
    if fact.axes is None:
        return replace(fact, numbers=None)
    gone = {normal(axis, fact.rank) for axis in asked}
    keep = bool(call.attributes.get("keepdims", 1))
    axes = tuple(() if place in gone else axis for place, axis in enumerate(fact.axes) if keep or place not in gone)
    return replace(fact, axes=axes, numbers=None, sized=fact.depends_on_sizes)


def _from(axis: int, rank: int) -> range:
    """An axis and all later ones."""
    return range(normal(axis, rank), rank)


def _taken_together(call: Call, rank: int) -> Iterable[int]:
    """The axes over which a normalisation computes its statistics."""
    axis = call.attributes.get("axis")
    if call.op in SOFTMAXES:  # before opset 13 also over all later axes
        return _from(1 if axis is None else axis, rank) if call.opset < 13 else [-1 if axis is None else axis]
    if "Layer" in call.op or call.op == "RMSNormalization":
        return _from(-1 if axis is None else axis, rank)
    if call.op in ("InstanceNormalization", "GroupNormalization"):  # the spatial axes, and the channels of a group
        return range(1, rank)
    if call.op == "MeanVarianceNormalization":
        return list(call.attributes.get("axes", [0, 2, 3]))
    return [1] if call.op == "LRN" else [-1 if axis is None else axis]


@operator(*SOFTMAXES, *NORMALIZATIONS)
def normalized(call: Call) -> list[Fact]:
    """Softmax and normalisations."""
    fact = call.fact(0)
    _meet(call, fact, _taken_together(call, fact.rank))
    sized = fact.depends_on_sizes if "max" in call.op else fact.sized
    return [replace(fact, numbers=None, sized=sized)]


@operator("CumSum", "CumProd")
def cumulative(call: Call) -> list[Fact]:
    """Cumulative sums along one axis."""
    fact = call.fact(0)
    asked = call.integers(1)
    names = fact.open if asked is None or fact.axes is None else frozenset()
    if asked is not None and fact.axes is not None and -fact.rank <= asked[0] < fact.rank:
        names = length(fact.axes[asked[0]]).names
    if fact.varies:
        call.meet(names, "adds up the steps of each call")
    # A cumulative sum of a constant counts steps.
    return [replace(fact, numbers=None, positions=fact.positions | (frozenset() if fact.varies else names))]


@operator("DFT")
def transformed(call: Call) -> list[Fact]:
    """DFT along one axis, of real numbers or, if the last axis is 2, of complex ones."""
    fact = call.fact(0)
    asked = call.integers(2, default=[call.attributes.get("axis", 1 if call.opset < 20 else -2)])
    if fact.axes is None or asked is None or not -fact.rank <= asked[0] < fact.rank:
        call.meet(fact.open, _OVER)
        return []
    axis = asked[0] % fact.rank
    _meet(call, fact, [axis, fact.rank - 1])
    count = call.integers(1)
    onesided, inverse = call.attributes.get("onesided", 0), call.attributes.get("inverse", 0)
    size = Size.of(count[0]) if count else Size.computed("dft") if call.has(1) else length(fact.axes[axis])
    if onesided:
        number = size.number
        if number is None or (inverse and not count):
            size = Size.computed("dft")
        elif not inverse:
            size = Size.of(number // 2 + 1)
    axes = [*fact.axes[:-1], axis_of(Size.of(1 if onesided and inverse else 2))]
    axes[axis] = axis_of(size)
    return [replace(fact, axes=tuple(axes), numbers=None)]


@operator("TopK")
def top(call: Call) -> list[Fact]:
    """TopK along one axis: values and indices."""
    fact = call.fact(0)
    axis = call.attributes.get("axis", -1)
    _meet(call, fact, [axis])
    if fact.axes is None or not -fact.rank <= axis < fact.rank:
        return [replace(fact, numbers=None)] * 2
    count = call.fact(1).numbers
    axes = list(fact.axes)
    axes[axis] = axis_of(count[0]) if count else axis_of(Size.computed("count"))
    found = replace(fact, axes=tuple(axes), numbers=None)
    return [found, found]


@operator("DynamicQuantizeLinear")
def dynamic_scale(call: Call) -> list[Fact]:
    """Dynamic quantization: one scale for all values, which depends on every step of a call."""
    fact = call.fact(0)
    call.meet(fact.open, "computes its scale from all steps of a call")
    scalar = replace(fact, axes=(), numbers=None)
    return [replace(fact, numbers=None), scalar, scalar]


@operator("QuantizeLinear", "DequantizeLinear")
def stored_scale(call: Call) -> list[Fact]:
    """Quantization with a stored scale."""
    fact = call.fact(0)
    return [replace(join(call.given), axes=fact.axes, spans=fact.open)]
