"""Reductions, normalisations, softmax, cumulative sums, sorting: they compute across their axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..call import Call, operator
from ..fact import Axis, Fact, axis_of, join, length
from ..size import Size

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_OVER = "goes over all steps of a call"


def _meet(call: Call, fact: Fact, axes: Iterable[int]) -> None:
    """Record the open axes among `axes`, also for constant values: their sum depends on their number."""
    if fact.axes is None:
        call.meet(fact.open, _OVER)
        return
    for axis in axes:
        if -fact.rank <= axis < fact.rank:
            call.meet(length(fact.axes[axis]).names, _OVER)


@operator(*(f"Reduce{name}" for name in _REDUCTIONS))
def reduced(call: Call) -> list[Fact]:
    """A reduction over the given axes, or all."""
    fact = call.fact(0)
    asked = call.attribute("axes", None) or (call.integers(1) if call.has(1) else None)
    if not asked and call.attribute("noop_with_empty_axes", 0):
        return [fact]
    if call.has(1) and asked is None:
        call.meet(fact.open, _OVER)
        return [replace(fact, axes=None, spans=fact.open, numbers=None, sized=fact.depends_on_sizes)]
    return [_without(call, fact, asked or list(range(fact.rank)))]


@operator("ArgMax", "ArgMin")
def arg_reduced(call: Call) -> list[Fact]:
    """ArgMax and ArgMin along one axis."""
    return [_without(call, call.fact(0), [call.attribute("axis", 0)])]


def _without(call: Call, fact: Fact, asked: list[int]) -> Fact:
    _meet(call, fact, asked)
    if fact.axes is None:
        return replace(fact, numbers=None)
    gone = {axis + fact.rank if axis < 0 else axis for axis in asked}
    keep = bool(call.attribute("keepdims", 1))
    axes: list[Axis] = []
    for place, axis in enumerate(fact.axes):
        if place not in gone:
            axes.append(axis)
        elif keep:
            axes.append(())
    return replace(fact, axes=tuple(axes), numbers=None, sized=fact.depends_on_sizes)


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(call: Call) -> list[Fact]:
    """Softmax along one axis; before opset 13 along it and all later ones."""
    fact = call.fact(0)
    old = call.opset < 13
    axis = call.attribute("axis", 1 if old else -1)
    _meet(call, fact, range(axis + fact.rank if axis < 0 else axis, fact.rank) if old else [axis])
    return [replace(fact, numbers=None, sized=fact.depends_on_sizes)]


@operator("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_norm(call: Call) -> list[Fact]:
    """Normalisation over one axis and all later ones."""
    fact = call.fact(0)
    axis = call.attribute("axis", -1)
    _meet(call, fact, range(axis + fact.rank if axis < 0 else axis, fact.rank))
    return [replace(fact, numbers=None)]


@operator("InstanceNormalization", "GroupNormalization")
def channel_norm(call: Call) -> list[Fact]:
    """Normalisation over the spatial axes and the channels of a group."""
    fact = call.fact(0)
    _meet(call, fact, range(1, fact.rank))
    return [replace(fact, numbers=None)]


@operator("LpNormalization")
def lp_norm(call: Call) -> list[Fact]:
    """Along one axis."""
    fact = call.fact(0)
    _meet(call, fact, [call.attribute("axis", -1)])
    return [replace(fact, numbers=None)]


@operator("MeanVarianceNormalization")
def mean_variance(call: Call) -> list[Fact]:
    """Normalisation over the given axes."""
    fact = call.fact(0)
    _meet(call, fact, call.attribute("axes", [0, 2, 3]))
    return [replace(fact, numbers=None)]


@operator("LRN")
def channels_nearby(call: Call) -> list[Fact]:
    """Normalisation over neighbouring channels."""
    fact = call.fact(0)
    _meet(call, fact, [1])
    return [replace(fact, numbers=None)]


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
    # Of equal numbers it counts steps.
    return [replace(fact, numbers=None, positions=fact.positions | (frozenset() if fact.varies else names))]


@operator("TopK")
def top(call: Call) -> list[Fact]:
    """TopK along one axis: values and indices."""
    fact = call.fact(0)
    axis = call.attribute("axis", -1)
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
    """Dynamic quantisation: one scale for all values, which depends on every step of a call."""
    fact = call.fact(0)
    call.meet(fact.open, "takes its scale from all steps of a call")
    scalar = replace(fact, axes=(), numbers=None)
    return [replace(fact, numbers=None), scalar, scalar]


@operator("QuantizeLinear", "DequantizeLinear")
def stored_scale(call: Call) -> list[Fact]:
    """Quantisation with a stored scale."""
    fact = call.fact(0)
    joined = join(call.given)
    return [replace(joined, axes=fact.axes, spans=fact.open)]
