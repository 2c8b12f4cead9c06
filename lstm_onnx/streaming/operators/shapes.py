"""Operators that read, compute and apply shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...onnxgraph.nodes import constant_of
from ..fact import NONE, Axis, Fact, axis_of, join, length, names_of
from ..node import Call, Node, operator, stored
from ..size import ONE, Size, normal, product
from .elementwise import require_steps_alone


@operator("Shape")
def shape(call: Call) -> list[Fact]:
    """Shape: the sizes of the axes."""
    fact = call.fact(0)
    if fact.axes is None:
        return [Fact(None, sized=fact.open)]
    start, end = call.attributes.get("start", 0), call.attributes.get("end", fact.rank)
    sizes = tuple(length(axis) for axis in fact.axes)[slice(start, end)]
    return [Fact.of_numbers(sizes)]


@operator("Size")
def size(call: Call) -> list[Fact]:
    """Size: the product of all sizes."""
    fact = call.fact(0)
    if fact.axes is None:
        return [Fact((), sized=fact.open)]
    return [Fact((), numbers=(product([length(axis) for axis in fact.axes]),))]


@operator("Constant")
def constant(call: Call) -> list[Fact]:
    """Constant: a stored value."""
    tensor = constant_of(call.node)
    return [Fact() if tensor is None else stored(tensor)]


@operator("ConstantOfShape")
def constant_of_shape(call: Call) -> list[Fact]:
    """ConstantOfShape: one value, repeated."""
    sizes = call.fact(0).numbers
    if sizes is None:
        return [Fact(None, spans=call.fact(0).depends_on_sizes, sized=call.fact(0).sized)]
    return [Fact(tuple(map(axis_of, sizes)))]


@operator("Range")
def counted(call: Call) -> list[Fact]:
    """Range: positions, if it goes along a dynamic axis."""
    joined = join(call.given)
    bounds = [fact.numbers for fact in call.given]
    if len(bounds) != 3 or any(bound is None or len(bound) != 1 for bound in bounds):
        return [replace(joined, axes=None, spans=joined.sized, positions=joined.positions | joined.sized)]
    (start,), (limit,), (delta,) = (bound for bound in bounds if bound is not None)
    count = (limit - start).divided(delta) or Size.computed("steps", start, limit, delta)
    return [Fact((axis_of(count),), positions=count.names | start.names)]


@operator("Expand")
def expand(call: Call) -> list[Fact]:
    """Expand: broadcasting to a shape."""
    fact, target = call.fact(0), call.fact(1)
    wanted = target.numbers
    if fact.axes is None or wanted is None:
        result = fact.without_axes(target.depends_on_sizes)
    else:
        axes: list[Axis] = []
        for back in range(max(fact.rank, len(wanted)), 0, -1):
            own = fact.axes[-back] if fact.rank >= back else ()
            asked = wanted[-back] if len(wanted) >= back else ONE
            axes.append(own if own or asked == ONE else axis_of(asked))
        result = replace(fact, axes=tuple(axes), numbers=None)
    require_steps_alone(call, [fact], replace(result, positions=NONE, sized=NONE))
    return [result]


@operator("Reshape")
def reshape(call: Call) -> list[Fact]:
    """Reshape: the same elements in the same order."""
    fact = call.fact(0)
    asked = call.fact(1).numbers if call.has(1) else None
    if call.opset < 5:
        asked = tuple(Size.of(int(value)) for value in call.attributes.get("shape", []))
    if fact.numbers is not None and asked is not None and len(asked) <= 1:
        return [replace(fact, axes=tuple(axis_of(Size.of(len(fact.numbers))) for _ in asked))]
    if fact.axes is None or asked is None:
        call.meet(fact.open if fact.varies else NONE, "reshapes to sizes that are not known")
        return [fact.without_axes(call.fact(1).depends_on_sizes)]
    shape = list(map(length, fact.axes))
    sizes = resolved(call, shape, asked, lambda whole, others: Size.computed("floor", whole, others))
    return [regrouped(call, fact, sizes)]


def resolved(
    call: Node[Any], shape: Sequence[Size], asked: Sequence[Size], quotient: Callable[[Size, Size], Size]
) -> list[Size]:
    """The sizes of a Reshape, with 0 and -1 resolved; `quotient` divides sizes that are not exact multiples."""
    keep_zeros = bool(call.attributes.get("allowzero", 0))
    sizes = [
        shape[place] if size.number == 0 and not keep_zeros and place < len(shape) else size
        for place, size in enumerate(asked)
    ]
    for place, size in enumerate(sizes):
        if size.number == -1:
            others = product([other for at, other in enumerate(sizes) if at != place])
            whole = product(list(shape))
            sizes[place] = whole.divided(others) or quotient(whole, others)
    return sizes


def regrouped(call: Call, fact: Fact, sizes: Sequence[Size]) -> Fact:
    """The factors of all axes, regrouped to axes of these sizes; a dynamic axis must not be split."""
    todo = [factor for axis in fact.axes or () for factor in axis]
    axes: list[Axis] = []
    for size_ in sizes:
        axis = _taken(todo, size_)
        if axis is None:
            names = names_of(todo) | size_.names
            if fact.varies or fact.positions:
                call.meet(names, f"splits or merges steps: it makes an axis of {size_} out of others")
            return replace(fact, axes=tuple(map(axis_of, sizes)), numbers=None)
        axes.append(axis)
    return replace(fact, axes=tuple(axes), numbers=None)


def _taken(todo: list[Size], wanted: Size) -> Axis | None:
    """Take factors from the front of `todo` whose product is `wanted`; None if there are none."""
    axis: list[Size] = []
    left = wanted
    while left != ONE:
        if not todo:
            return None
        factor = todo.pop(0)
        rest = left.divided(factor)
        if rest is not None:
            axis.append(factor)
            left = rest
            continue
        over = factor.divided(left)
        if over is None or left.names:
            return None
        axis.append(left)
        todo.insert(0, over)
        left = ONE
    return tuple(axis)


@operator("Flatten")
def flatten(call: Call) -> list[Fact]:
    """Flatten to two axes: those before `axis`, and the rest."""
    fact = call.fact(0)
    if fact.axes is None:
        return [replace(fact, numbers=None)]
    at = normal(call.attributes.get("axis", 1), fact.rank)
    before = tuple(factor for axis in fact.axes[:at] for factor in axis)
    return [replace(fact, axes=(before, tuple(f for axis in fact.axes[at:] for f in axis)), numbers=None)]


@operator("Squeeze")
def squeeze(call: Call) -> list[Fact]:
    """Squeeze: axes of size 1 removed."""
    fact = call.fact(0)
    if fact.numbers is not None:
        return [replace(fact, axes=())]
    if fact.axes is None:
        return [fact]
    asked = call.integers(1, "axes")
    if asked is None:
        gone = {place for place, axis in enumerate(fact.axes) if axis == ()}
    else:
        gone = {normal(axis, fact.rank) for axis in asked}
    return [replace(fact, axes=tuple(axis for place, axis in enumerate(fact.axes) if place not in gone))]


@operator("Unsqueeze")
def unsqueeze(call: Call) -> list[Fact]:
    """Unsqueeze: axes of size 1 inserted."""
    fact = call.fact(0)
    if fact.numbers is not None and fact.rank == 0:
        return [replace(fact, axes=((),))]
    asked = call.integers(1, "axes")
    if fact.axes is None or asked is None:
        return [fact.without_axes()]
    rank = fact.rank + len(asked)
    new = {normal(axis, rank) for axis in asked}
    own = iter(fact.axes)
    axes = tuple(() if place in new else next(own, ()) for place in range(rank))
    return [replace(fact, axes=axes, numbers=None)]


@operator("Transpose")
def transpose(call: Call) -> list[Fact]:
    """Transpose: axes permuted."""
    fact = call.fact(0)
    if fact.axes is None:
        return [fact]
    order = call.attributes.get("perm") or list(range(fact.rank))[::-1]
    if sorted(order) != list(range(fact.rank)):
        return [fact.without_axes()]
    return [replace(fact, axes=tuple(fact.axes[place] for place in order))]
