"""What is known about one value while the time axis is followed through a graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from .size import ONE, Size, product

Names = frozenset[str]
NONE: Names = frozenset()
Axis = tuple[Size, ...]
"""The factors of an axis, in order: (batch, time) where a reshape merged two axes; none for an axis of size 1."""


@dataclass(frozen=True)
class Fact:
    """What is known about a value.

    Attributes:
        axes: its axes; None if not even their number is known.
        spans: the dynamic axes along which it may vary, if `axes` is None; otherwise empty.
        varies: whether it depends on the values of inputs.
        last: dynamic axes of which it holds only the last step, or a summary of all steps so far.
        states: state inputs from which it is computed other than through a recurrent node.
        sized: dynamic axes on whose sizes its elements depend, if they are not in `numbers`.
        positions: dynamic axes along which its elements count from the first step of a call.
        numbers: the integers that it holds, if they are known; a scalar has one.
        lengths: whether it is computed only from lengths of sequences.
    """

    axes: tuple[Axis, ...] | None = None
    spans: Names = NONE
    varies: bool = False
    last: Names = NONE
    states: Names = NONE
    sized: Names = NONE
    positions: Names = NONE
    numbers: tuple[Size, ...] | None = field(default=None)
    lengths: bool = False

    @classmethod
    def of_numbers(cls, numbers: tuple[Size, ...]) -> Fact:
        """The fact of a vector with these integers."""
        return cls((axis_of(Size.of(len(numbers))),), numbers=numbers)

    @property
    def open(self) -> Names:
        """All dynamic axes along which the value may vary."""
        if self.axes is None:
            return self.spans
        return names_of(size for axis in self.axes for size in axis)

    @property
    def rank(self) -> int:
        """The number of axes; 0 if it is unknown."""
        return len(self.axes or ())

    def without_axes(self, spans: Names = NONE) -> Fact:
        """The same fact with unknown axes, which may also include those of `spans`."""
        return replace(self, axes=None, spans=self.open | spans, numbers=None)

    @property
    def depends_on_sizes(self) -> Names:
        """The dynamic axes on whose sizes its elements depend."""
        return self.sized | (names_of(self.numbers) if self.numbers is not None else NONE)


def names_of(sizes: Iterable[Size]) -> Names:
    """All dynamic axes on which one of the sizes depends."""
    return NONE.union(*(size.names for size in sizes))


def open_names(facts: Iterable[Fact]) -> Names:
    """All dynamic axes along which one of the values may vary."""
    return NONE.union(*(fact.open for fact in facts))


def axis_of(size: Size) -> Axis:
    """An axis whose size is this one factor."""
    return () if size == ONE else (size,)


def length(axis: Axis) -> Size:
    """The size of an axis: the product of its factors."""
    return product(axis)


def symbols(axis: Axis) -> Names:
    """The dynamic axes that are factors of this axis."""
    return frozenset(name for size in axis if (name := size.symbol) is not None)


def join(facts: Sequence[Fact]) -> Fact:
    """The fact of a value computed from several values, without its axes and elements."""

    varying = [fact for fact in facts if fact.varies]
    return Fact(
        varies=bool(varying),
        last=NONE.union(*(fact.last for fact in facts)),
        states=NONE.union(*(fact.states for fact in facts)),
        sized=NONE.union(*(fact.depends_on_sizes for fact in facts)),
        positions=NONE.union(*(fact.positions for fact in facts)),
        lengths=bool(varying) and all(fact.lengths for fact in varying),
    )
