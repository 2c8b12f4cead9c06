"""Sizes of axes as polynomials in the names of dynamic axes: ``time``, ``2*batch``, ``time - 2``.

Anything that is not a polynomial (``time//2``, ``max(time, 4)``) is a separate symbol, with the names in its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPEN = re.compile(r"<(.*?)>")


@dataclass(frozen=True)
class Size:
    """A sum of integer multiples of products of symbols.

    `terms` maps each product, its symbols in order, to its factor; none is zero.
    """

    terms: frozenset[tuple[tuple[str, ...], int]]

    @classmethod
    def of(cls, value: int | str) -> Size:
        """From an integer or the name of a dynamic axis."""
        if isinstance(value, int):
            return cls(frozenset({((), value)} if value else ()))
        return cls(frozenset({((value,), 1)}))

    @classmethod
    def of_product(cls, text: str) -> Size | None:
        """From integers and names of dynamic axes, as in ``9*batch``; None for anything else."""
        parts = [part.strip() for part in text.split("*")]
        if not all(part.isidentifier() or part.isdecimal() for part in parts):
            return None
        return product([cls.of(int(part) if part.isdecimal() else part) for part in parts])

    @classmethod
    def computed(cls, how: str, *parts: Size) -> Size:
        """A size that is not a polynomial, such as ``floor(time/2)``; it depends on the axes of `parts`."""
        names = sorted(set().union(*(part.names for part in parts)))
        text = f"{how}({', '.join(map(str, parts))})"
        return cls.of(f"{text}<{' '.join(names)}>")

    @property
    def number(self) -> int | None:
        """The integer value if the size depends on no axis, otherwise None."""
        return None if any(symbols for symbols, _ in self.terms) else sum(factor for _, factor in self.terms)

    @property
    def term(self) -> tuple[tuple[str, ...], int] | None:
        """Its only product of symbols, and the factor; None where it has several products, or is 0."""
        return next(iter(self.terms)) if len(self.terms) == 1 else None

    @property
    def symbol(self) -> str | None:
        """The name of the axis if the size is that axis alone, otherwise None."""
        symbols, factor = self.term or ((), 0)
        plain = len(symbols) == 1 and factor == 1 and "<" not in symbols[0]
        return symbols[0] if plain else None

    @property
    def is_product(self) -> bool:
        """Whether the size is a product of dynamic axes and integers."""
        return len(self.terms) == 1 and all(
            factor >= 1 and symbols and not any("<" in symbol for symbol in symbols) for symbols, factor in self.terms
        )

    @property
    def names(self) -> frozenset[str]:
        """All dynamic axes on which the size depends."""
        found: set[str] = set()
        for symbols, _ in self.terms:
            for symbol in symbols:
                inner = _OPEN.search(symbol)
                found |= set(inner.group(1).split()) if inner else {symbol}
        return frozenset(found)

    def __add__(self, other: Size) -> Size:
        """The sum."""
        total = dict(self.terms)
        for symbols, factor in other.terms:
            total[symbols] = total.get(symbols, 0) + factor
        return Size(frozenset((symbols, factor) for symbols, factor in total.items() if factor))

    def __neg__(self) -> Size:
        """The negative."""
        return self * Size.of(-1)

    def __sub__(self, other: Size) -> Size:
        """The difference."""
        return self + -other

    def __mul__(self, other: Size) -> Size:
        """The product."""
        total: dict[tuple[str, ...], int] = {}
        for one, a in self.terms:
            for two, b in other.terms:
                symbols = tuple(sorted((*one, *two)))
                total[symbols] = total.get(symbols, 0) + a * b
        return Size(frozenset((symbols, factor) for symbols, factor in total.items() if factor))

    def divided(self, other: Size) -> Size | None:
        """The exact quotient; None if there is a remainder."""
        if self == other:
            return Size.of(1)
        if other.term is None:
            return self._divided_by_sum(other)
        divisor, by = other.term
        total = {}
        for symbols, factor in self.terms:
            left = list(symbols)
            for symbol in divisor:
                if symbol not in left:
                    return None
                left.remove(symbol)
            if factor % by:
                return None
            total[tuple(left)] = factor // by
        return Size(frozenset(total.items()))

    def _divided_by_sum(self, other: Size) -> Size | None:
        """Long division: each step removes the leading term of the remainder, in an order that products preserve."""
        if not other.terms:
            return None
        quotient, left = Size.of(0), self
        while left.terms:
            part = Size(frozenset({left._first})).divided(Size(frozenset({other._first})))
            if part is None:
                return None
            quotient, left = quotient + part, left - part * other
        return quotient

    @property
    def _first(self) -> tuple[tuple[str, ...], int]:
        """The leading term: the one of the highest degree, and among several the first by its symbols."""
        return min(self.terms, key=lambda term: (-len(term[0]), term[0]))

    def __str__(self) -> str:
        """As in ``2*time - 1``."""
        if not self.terms:
            return "0"
        parts = []
        for symbols, factor in sorted(self.terms, key=lambda term: (-len(term[0]), term)):
            names = [_OPEN.sub("", symbol) for symbol in symbols]
            parts.append("*".join([*([str(factor)] if factor != 1 or not names else []), *names]))
        return " + ".join(parts)


def product(sizes: tuple[Size, ...] | list[Size]) -> Size:
    """The product of sizes; 1 if there are none."""
    total = Size.of(1)
    for size in sizes:
        total *= size
    return total


def normal(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis


ONE = Size.of(1)
