"""Chooses the sizes of an axis to try: all small ones, those near powers of two, round ones, and some large ones.

A file can be wrong at a single size, or from some size on, so a few sizes prove little; many are cheap, since a run
with one row and few steps costs almost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..metadata import Metadata
from ..symbolic_dims import ANY_SIZE, Limit, clamped

DENSE = 73
"""All sizes below this are tried if that is cheap."""
DENSE_BATCH = 33
"""The same for a batch axis."""
SMALL = 13
"""Sizes below this are tried first."""
LONG = 300
"""Time steps of the long case."""
LARGEST_TIME = 513
SEVERAL_ROWS = ((2, 20), (12, 24), (3, 130), (2, 260))
"""(batch, time) of several long sequences: the sweep over time has one row, in which no sequence is padded."""
MOST_WORK = 6e9
"""The most multiplications of a sweep over one axis, in each of three runs (PyTorch twice, and the file)."""
MOST_NUMBERS = 2**19
"""The most numbers in a sweep's outputs, so that a golden file stays small."""
_POWERS = (16, 32, 64, 128, 256, 512, 1024)
_ROUND = (20, 24, 25, 30, 40, 48, 50, 60, 80, 96, 100, 120, 144, 150, 192, 200, 250, 300, 384, 400, 500, 600, 768, 1000)


@dataclass(frozen=True)
class Axes:
    """A file's axes by its metadata: limits, sizes at which the code may change its behaviour, and multiples."""

    limits: Mapping[str, Limit] = field(default_factory=dict)
    boundaries: Mapping[str, Sequence[int]] = field(default_factory=dict)
    multiples: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, metadata: Metadata) -> Axes:
        """The axes of a file."""
        streaming = metadata.streaming_or_default
        limits = dict(metadata.axis_limits)
        if metadata.streaming is not None:  # limits are those of chunks, which may be shorter than a sequence
            limits |= dict.fromkeys(metadata.time_axes, (streaming.least, None))
        return cls(limits, metadata.size_boundaries, dict.fromkeys(metadata.time_axes, streaming.unit))

    def within(self, axis: str, size: int) -> int:
        """The size nearest to `size` that the axis can have; the next one of an axis with multiples."""
        size = clamped(size, self.limits.get(axis, ANY_SIZE))
        by = self.multiples.get(axis, 1)
        return -(-size // by) * by

    def to_try(self, axis: str, cost: Callable[[int], float], budget: float, **options: Any) -> list[int]:
        """The sizes of an axis to try; see `sizes_to_try`."""
        limits, boundaries = self.limits.get(axis, ANY_SIZE), self.boundaries.get(axis, ())
        found = sizes_to_try(limits, boundaries, cost, budget, **options)
        return sorted({self.within(axis, size) for size in found})


def sizes_to_try(
    limits: Limit,
    boundaries: Sequence[int],
    cost: Callable[[int], float],
    budget: float,
    *,
    first: Iterable[int] = (),
    largest: int | None = None,
    dense: int = DENSE,
) -> list[int]:
    """The sizes of an axis to try, in rising order.

    Args:
        limits: what the axis allows.
        boundaries: sizes at which the model's code may change its behaviour: each is tried, with its neighbours.
        cost: the cost of a size, in any unit.
        budget: the total cost, in the same unit, beyond which less important sizes are left out.
        first: sizes that come before all others.
        largest: the largest size that is not near a boundary, within the limits.
        dense: all sizes below this are tried if that is cheap.
    """
    least, most = limits
    near = {size + change for size in boundaries for change in (-1, 0, 1)}
    near |= {least, least + 1} | ({most - 1, most} if most is not None else set())
    end = most if largest is None else largest if most is None else min(largest, most)
    chosen: dict[int, None] = {}
    spent = 0.0
    for size in dict.fromkeys([*sorted(near), *first, *_by_importance(least, dense)]):
        bounded = size in near
        if size < least or (most is not None and size > most) or (end is not None and size > end and not bounded):
            continue
        price = cost(size)
        # A size that is a number in the model's code may cost as much as all others together.
        if price > budget if bounded else spent + price > budget:
            continue
        chosen[size] = None
        spent += 0.0 if bounded else price
    return sorted(chosen) or [least]


def _by_importance(least: int, dense: int) -> Iterator[int]:
    yield from range(1, SMALL + 1)
    yield from range(least, least + SMALL)
    for power in _POWERS:
        yield from (power, power + 1, power - 1)
    yield from _ROUND
    yield from range(SMALL, dense)


def spans(sizes: Iterable[int]) -> str:
    """Sizes as text, such as ``1 to 16, 32, 64``."""
    found: list[list[int]] = []
    for size in sorted(set(sizes)):
        if found and size == found[-1][1] + 1:
            found[-1][1] = size
        else:
            found.append([size, size])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in found)
