"""What is known of one value while the time axis is followed through a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .size import ONE, Size, product

Names = frozenset[str]
NONE: Names = frozenset()
Axis = tuple[Size, ...]
"""The factors of an axis, in order: (batch, time) where a reshape made one axis of two; none of an axis of 1."""


@dataclass(frozen=True)
class Fact:
    """What is known of a value.

    Attributes:
        axes: its axes; None where not even their number is known.
        spans: the open axes along which it may vary although `axes` does not tell; only where that is None.
        varies: whether it depends on numbers that a caller gives.
        last: open axes of which it is computed from the last step alone, or from all steps so far.
        states: state inputs that it is computed from, other than through a recurrent node.
        sized: open axes on whose sizes its numbers depend, where they are not in `numbers`.
        positions: open axes along which its numbers count from the first step of a call.
        numbers: the integers that it holds, where these are known; a scalar has one.
        lengths: whether it is made of lengths of sequences alone.
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

    @property
    def open(self) -> Names:
        """All open axes along which the value may vary."""
        if self.axes is None:
            return self.spans
        return names_of(size for axis in self.axes for size in axis)

    @property
    def rank(self) -> int:
        """The number of axes; 0 if it is unknown."""
        return len(self.axes or ())

    @property
    def depends_on_sizes(self) -> Names:
        """The open axes on whose sizes its values depend."""
        return self.sized | (names_of(self.numbers) if self.numbers is not None else NONE)


def names_of(sizes: Iterable[Size]) -> Names:
    """All open axes on which one of the sizes depends."""
    found: set[str] = set()
    for size in sizes:
        found |= size.names
    return frozenset(found)


def axis_of(size: Size) -> Axis:
    """An axis whose size is this one factor."""
    return () if size == ONE else (size,)


def length(axis: Axis) -> Size:
    """The size of an axis: the product of its factors."""
    return product(axis)


def symbols(axis: Axis) -> Names:
    """The open axes that are factors of this axis."""
    return frozenset(name for size in axis if (name := size.symbol) is not None)


def join(facts: Sequence[Fact]) -> Fact:
    """Merge the facts of several values that are computed together, without their axes and values."""

    def every(pick: Callable[[Fact], Names]) -> Names:
        return frozenset().union(*(pick(fact) for fact in facts)) if facts else NONE

    varying = [fact for fact in facts if fact.varies]
    return Fact(
        varies=bool(varying),
        last=every(lambda fact: fact.last),
        states=every(lambda fact: fact.states),
        sized=every(lambda fact: fact.depends_on_sizes),
        positions=every(lambda fact: fact.positions),
        lengths=bool(varying) and all(fact.lengths for fact in varying),
    )
