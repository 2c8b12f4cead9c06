"""Operators that index, concatenate, split and repeat along an axis."""

from __future__ import annotations

from dataclasses import replace

from ...onnxgraph.nodes import END_OF_AXIS
from ..fact import NONE, Axis, Fact, axis_of, join, length, open_names, symbols
from ..node import Call, operator
from ..size import Size, normal
from .elementwise import one_axis, require_steps_alone


@operator("Slice")
def slice_(call: Call) -> list[Fact]:
    """Slice: the whole axis, its last step, or a range that cannot be streamed."""
    fact = call.fact(0)
    starts, ends = (_bounds(call, name, index) for index, name in ((1, "starts"), (2, "ends")))
    if fact.numbers is not None:
        numbers = call.sliced()
        if numbers is None:
            return [Fact(None, sized=fact.depends_on_sizes)]
        return [Fact.of_numbers(numbers)]
    if fact.axes is None or starts is None:
        if fact.varies:
            call.meet(fact.open, "slices the steps")
        return [fact.without_axes()]
    ends = ends or [None] * len(starts)
    asked = call.attributes.get("axes") or call.integers(3) or range(len(starts))
    steps = call.integers(4) or [1] * len(starts)
    axes = list(fact.axes)
    last = fact.last
    for axis, start, end, step in zip(asked, starts, ends, steps, strict=False):
        place = normal(axis, fact.rank)
        if not 0 <= place < fact.rank:
            return [fact.without_axes()]
        own = axes[place]
        if _is_whole(call, own, start, end, step):
            continue
        names = symbols(own) | length(own).names
        if names and start == Size.of(-1) and step == 1 and _reaches_end(end, own):
            last |= names
            axes[place] = ()
            continue
        if fact.varies or fact.positions:
            call.meet(names, "slices the steps")
        axes[place] = axis_of(_cut(own, start, end, step))
    return [replace(fact, axes=tuple(axes), last=last, numbers=None)]


def _bounds(call: Call, name: str, index: int) -> list[Size | None] | None:
    """The starts or ends of a Slice; None for an unknown one, or for all if their number is unknown."""
    held = call.attributes.get(name)
    if held is not None:
        return [Size.of(int(value)) for value in held]
    fact = call.fact(index)
    if fact.numbers is not None:
        return list(fact.numbers)
    return [None] if fact.axes == ((),) else None


def _is_whole(call: Call, axis: Axis, start: Size | None, end: Size | None, step: int) -> bool:
    if start != Size.of(0) or step != 1:
        return False
    # Up to the longest of the lengths, which is right in a chunk as in the whole sequence.
    return call.fact(2).lengths if end is None else _reaches_end(end, axis)


def _reaches_end(end: Size | None, axis: Axis) -> bool:
    return end is not None and (end == length(axis) or (end.number is not None and end.number >= END_OF_AXIS))


def _cut(axis: Axis, start: Size | None, end: Size | None, step: int) -> Size:
    size = length(axis)
    numbers = [item.number if item is not None else None for item in (size, start, end)]
    if None not in numbers and step:
        whole, first, stop = (number for number in numbers if number is not None)
        return Size.of(len(range(whole)[first : min(stop, whole) : step]))
    return Size.computed("part", size)


@operator("Gather")
def gather(call: Call) -> list[Fact]:
    """Gather: rows of a table, or a single step."""
    data, indices = call.fact(0), call.fact(1)
    axis = call.attributes.get("axis", 0)
    if data.numbers is not None:
        return [_numbers_gathered(call, data, indices)]
    if data.axes is None:
        if data.varies:
            call.meet(data.open, "selects steps by their indices")
        return [replace(join([data, indices]), spans=data.open | indices.open)]
    place = normal(axis, data.rank)
    if not 0 <= place < data.rank:
        return [replace(join([data, indices]), spans=data.open | indices.open)]
    own = data.axes[place]
    names = symbols(own) | length(own).names
    only = indices.numbers[0] if indices.numbers is not None and len(indices.numbers) == 1 else None
    last = NONE
    if names and only is not None and only in (Size.of(-1), length(own) - Size.of(1)):
        last = names
        indices = replace(indices, numbers=None, sized=NONE)
    elif names and (data.varies or data.positions):
        call.meet(names, "selects steps by their indices")
    inner = indices.axes
    axes = None if inner is None else (*data.axes[:place], *inner, *data.axes[place + 1 :])
    joined = join([data, indices])
    result = replace(joined, axes=axes, spans=data.open | indices.open, last=joined.last | last, lengths=data.lengths)
    if indices.varies or indices.positions:
        require_steps_alone(call, [data, indices], replace(result, positions=data.positions, sized=data.sized))
    return [result]


def _numbers_gathered(call: Call, data: Fact, indices: Fact) -> Fact:
    picked = call.gathered() if indices.rank <= 1 else None
    if picked is None:
        return Fact(None, sized=data.depends_on_sizes | indices.depends_on_sizes, varies=indices.varies)
    return Fact(() if indices.rank == 0 else (axis_of(Size.of(len(picked))),), numbers=picked)


@operator("GatherElements")
def gather_elements(call: Call) -> list[Fact]:
    """GatherElements: an index for each element, along one axis."""
    data, indices = call.fact(0), call.fact(1)
    axis = call.attributes.get("axis", 0)
    joined = join([data, indices])
    if data.axes is None or indices.axes is None or not -data.rank <= axis < data.rank:
        call.meet(data.open, "selects steps by their indices")
        return [replace(joined, spans=data.open | indices.open)]
    call.meet(length(data.axes[axis]).names, "selects steps by their indices")
    result = replace(joined, axes=indices.axes)
    require_steps_alone(call, [data, indices], result)
    return [result]


@operator("GatherND")
def gather_nd(call: Call) -> list[Fact]:
    """GatherND: elements or slices, by indices into the first axes."""
    data, indices = call.fact(0), call.fact(1)
    joined = join([data, indices])
    first = int(call.attributes.get("batch_dims", 0))
    depth = length(indices.axes[-1]).number if indices.axes else None
    if data.axes is None or depth is None or not 0 <= first < indices.rank or not first + depth <= data.rank:
        call.meet(data.open if joined.varies else NONE, "selects steps by their indices")
        return [replace(joined, spans=data.open | indices.open)]
    picked = data.axes[first : first + depth]
    call.meet({name for axis in picked for name in length(axis).names}, "selects steps by their indices")
    result = replace(joined, axes=(*(indices.axes or ())[:-1], *data.axes[first + depth :]))
    require_steps_alone(call, [data, indices], result)
    return [result]


@operator("Concat", "ConcatFromSequence")
def concat(call: Call) -> list[Fact]:
    """Concat: inputs joined along an axis."""
    facts = call.given
    numbers = call.concatenated()
    if call.op == "Concat" and numbers is not None and all(fact.rank == 1 for fact in facts):
        return [Fact.of_numbers(numbers)]
    joined = join(facts)
    ranks = {fact.rank for fact in facts}
    if call.op != "Concat" or any(fact.axes is None for fact in facts) or len(ranks) != 1:
        spans = open_names(facts)
        call.meet(spans if joined.varies else NONE, "concatenates along an unknown axis")
        return [replace(joined, spans=spans)]
    rank = ranks.pop()
    place = normal(call.attributes.get("axis", 0), rank)
    axes: list[Axis] = []
    for at in range(rank):
        own = [(fact.axes or ())[at] for fact in facts]
        if at == place:
            total = own[0] if len(own) == 1 else axis_of(sum(map(length, own), Size.of(0)))
            if len(own) > 1 and (joined.varies or joined.positions):
                call.meet(
                    {name for item in own for name in length(item).names},
                    "concatenates further steps with those of the call",
                )
            axes.append(total)
            continue
        axes.append(one_axis(call, own))
    result = replace(joined, axes=tuple(axes))
    require_steps_alone(call, facts, result)
    return [result]


@operator("Split")
def split(call: Call) -> list[Fact]:
    """Split of one axis."""
    fact = call.fact(0)
    count = len(call.node.output)
    sizes = call.attributes.get("split") or call.integers(1)
    axis = call.attributes.get("axis", 0)
    if fact.numbers is not None and sizes is not None and len(sizes) == count:
        parts, at = [], 0
        for size in sizes:
            parts.append(Fact.of_numbers(fact.numbers[at : at + size]))
            at += size
        return parts
    if fact.axes is None or not -fact.rank <= axis < fact.rank:
        return [fact.without_axes()] * count
    place = normal(axis, fact.rank)
    whole = length(fact.axes[place])
    if count > 1 and (fact.varies or fact.positions):
        call.meet(whole.names, "splits the steps")
    if count == 1:
        return [replace(fact, numbers=None)]
    before, after = fact.axes[:place], fact.axes[place + 1 :]
    wanted = _parts(whole, count) if sizes is None else [Size.of(size) for size in sizes]
    return [replace(fact, axes=(*before, axis_of(part), *after), numbers=None) for part in wanted]


def _parts(whole: Size, count: int) -> list[Size]:
    """The sizes of equal parts, of which the last may have fewer entries."""
    if whole.number is None:
        return [whole.divided(Size.of(count)) or Size.computed("part", whole)] * count
    each = -(-whole.number // count)
    return [Size.of(max(min(each, whole.number - each * place), 0)) for place in range(count)]


@operator("Tile")
def tile(call: Call) -> list[Fact]:
    """Tile: repetition along axes."""
    fact, repeats = call.fact(0), call.fact(1).numbers
    if fact.axes is None or repeats is None or len(repeats) != fact.rank:
        call.meet(fact.open if fact.varies else NONE, "repeats steps")
        return [fact.without_axes(call.fact(1).depends_on_sizes)]
    axes: list[Axis] = []
    for axis, count in zip(fact.axes, repeats, strict=True):
        if count == Size.of(1):
            axes.append(axis)
            continue
        if fact.varies:
            call.meet(length(axis).names, "repeats steps")
        axes.append(axis_of(length(axis) * count))
    result = replace(fact, axes=tuple(axes), numbers=None)
    require_steps_alone(call, [fact], replace(result, positions=NONE, sized=NONE))
    return [result]


@operator("Pad")
def pad(call: Call) -> list[Fact]:
    """Pad: axes extended, or cropped by negative pads."""
    fact = call.fact(0)
    widths = call.attributes.get("pads") or call.integers(1)
    asked = call.integers(3, default=range(fact.rank))
    if fact.axes is None or widths is None or asked is None or len(widths) != 2 * len(asked):
        call.meet(fact.open if fact.varies else NONE, "pads steps")
        return [fact.without_axes()]
    axes = list(fact.axes)
    for axis, before, after in zip(asked, widths[: len(asked)], widths[len(asked) :], strict=True):
        if before == after == 0:
            continue
        size = length(axes[axis])
        if fact.varies or fact.positions:
            call.meet(size.names, "pads the steps of each call")
        axes[axis] = axis_of(size + Size.of(before + after))
    return [replace(fact, axes=tuple(axes), numbers=None)]


@operator("OneHot")
def one_hot(call: Call) -> list[Fact]:
    """OneHot: a new axis for the class of each element."""
    indices, depth = call.fact(0), call.fact(1).numbers
    if indices.axes is None:
        return [replace(indices, numbers=None, lengths=False)]
    place = normal(call.attributes.get("axis", -1), indices.rank + 1)
    classes = axis_of(depth[0]) if depth else axis_of(Size.computed("classes"))
    axes = (*indices.axes[:place], classes, *indices.axes[place:])
    return [replace(indices, axes=axes, numbers=None, lengths=False)]
