"""Names for the sizes of axes, and sizes that follow from the size of another axis: twice as many, or one more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

AXIS = "axis"
"""The name of the size that changes in expressions of sizes that follow from it: ``2*axis``."""
_FACTORS = 20
"""The most factors of one size in another that are tried."""
_MOST_SHIFT = 4
"""How far a size may exceed another one without being a multiple of it."""


@dataclass(frozen=True)
class Tied:
    """Axes that can change only together with axes of other sizes.

    `growths` has, for each size that changes, the axes that change with it as expressions of ``axis``, its own axis
    first; `dims` has all axes, as format strings of the growths' names: ``2*{0}``, ``{0} + 1``, ``{0}*{1}``.
    """

    growths: tuple[Mapping[tuple[str, int], str], ...] = ()
    dims: Mapping[tuple[str, int], str] = field(default_factory=dict)


def follows(size: int, base: int, *, alone: bool) -> list[str]:
    """Expressions of ``axis`` by which a larger size may follow from `base`; only likely ones unless `alone`."""
    factors = _factors(base, size) if alone else [size // base, 1]
    ties = [(factor, size - factor * base) for factor in dict.fromkeys(factors)]
    return [multiple(AXIS, *tie) for tie in ties if alone or not tie[1] or (tie[0] == 1 and tie[1] <= _MOST_SHIFT)]


def _factors(own: int, size: int) -> list[int]:
    """How many entries each step may have if `own` steps have `size` entries; the likely numbers come first."""
    divisors = [factor for factor in range(1, size + 1) if size % factor == 0]
    near = sorted(divisors, key=lambda factor: abs(factor - size / own))
    return list(dict.fromkeys([size // own, 1, *near]))[:_FACTORS]


def multiple(name: str, factor: int, offset: int) -> str:
    """``4*time - 16``, as torch writes it."""
    text = name if factor == 1 else f"{factor}*{name}"
    return text if offset == 0 else f"{text} {'-' if offset < 0 else '+'} {abs(offset)}"


def labels_of(groups: Iterable[Collection[tuple[str, int]]], roles: Iterable[str]) -> Iterator[str]:
    """``batch`` and ``time`` for the first of each role; ``x_2`` for others, by input and axis."""
    used: set[str] = set()
    for group, role in zip(groups, roles, strict=True):
        name, axis = next(iter(group))
        label = role if role and role not in used else f"{name}_{axis}".replace(".", "_")
        used.add(label)
        yield label
