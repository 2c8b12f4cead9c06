"""Sizes of axes that depend on the number of time steps, with floors that can be compared."""

from __future__ import annotations

from math import gcd

from ..size import Size
from .counts import Count, Input, Stage, span

_LONGEST = 2**16
"""No model that needs more steps than this is followed."""


class Lengths:
    """The sizes of the axes of one graph; a floor is a symbol whose operands are known.

    Attributes:
        time: the symbol of the number of time steps.
    """

    def __init__(self, time: str) -> None:
        self.time = time
        self._floors: dict[str, tuple[Size, int]] = {}

    def floor(self, size: Size, divisor: int) -> Size:
        """``size // divisor`` in a form that is the same for equal floors of floors."""
        whole, rest = {}, {}
        for symbols, factor in size.terms:
            part, left = divmod(factor, divisor) if not symbols or factor % divisor == 0 else (0, factor)
            if part:
                whole[symbols] = part
            if left:
                rest[symbols] = left
        front, left_over = Size(frozenset(whole.items())), Size(frozenset(rest.items()))
        if left_over.number is not None:
            return front
        if all(factor < 0 for symbols, factor in rest.items() if symbols):  # -x // a is -((x + a - 1) // a)
            return front - self.floor(Size.of(divisor - 1) - left_over, divisor)
        number = rest.get((), 0)
        atom = Size(frozenset((symbols, factor) for symbols, factor in rest.items() if symbols))
        inner = self._inside(atom)
        if inner is not None:  # (x // a + b) // c is (x + a * b) // (a * c)
            below, by = inner
            return front + self.floor(below + Size.of(by * number), by * divisor)
        common = gcd(divisor, *(factor for symbols, factor in atom.terms))
        if common > 1:  # (g * a + b) // (g * c) is (a + b // g) // c
            less = Size(frozenset((symbols, factor // common) for symbols, factor in atom.terms))
            return front + self.floor(less + Size.of(number // common), divisor // common)
        text = f"floor(({left_over})/{divisor})<{' '.join(sorted(size.names))}>"
        self._floors[text] = (left_over, divisor)
        return front + Size.of(text)

    def floor_of(self, symbol: str) -> tuple[Size, int] | None:
        """The dividend and divisor of a floor's symbol; None for another symbol."""
        return self._floors.get(symbol)

    def value(self, size: Size, m: int) -> int | None:
        """The size for a sequence of m time steps; None if it depends on more than that."""
        total = 0
        for symbols, factor in size.terms:
            for symbol in symbols:
                divided, by = self._floors.get(symbol, (None, 1))
                inner = m if symbol == self.time else None if divided is None else self.value(divided, m)
                if inner is None:
                    return None
                factor *= inner // by
            total += factor
        return total

    def steps_for(self, size: Size, number: int) -> int | None:
        """The least number of time steps for which the size is `number` or more; None if it might be less for more.

        Other dynamic axes have a size of 1 or more.
        """
        if number in (0, 1):  # times a batch it is no less; a negative size would be
            for symbol in set.intersection(*(set(symbols) for symbols, _ in size.terms)) if size.terms else ():
                size = size if self.depends(Size.of(symbol)) else size.divided(Size.of(symbol)) or size
        if size.number is not None:
            return 1 if size.number >= number else None
        if not self._grows(size):
            return None
        return next((m for m in range(1, _LONGEST) if (self.value(size, m) or 0) >= number), None)

    def _grows(self, size: Size) -> bool:
        """Whether more time steps never give a smaller size, which is known of sums of steps and of their floors."""
        return all(
            not symbols
            or (
                len(symbols) == 1
                and factor > 0
                and (
                    symbols[0] == self.time or (symbols[0] in self._floors and self._grows(self._floors[symbols[0]][0]))
                )
            )
            for symbols, factor in size.terms
        )

    def _inside(self, size: Size) -> tuple[Size, int] | None:
        symbols, factor = size.term or ((), 0)
        return self._floors.get(symbols[0]) if len(symbols) == 1 and factor == 1 else None

    def depends(self, size: Size) -> bool:
        """Whether the size depends on the number of time steps."""
        return self.time in size.names


def count_by(lengths: Lengths, size: Size) -> Count | None:
    """The count of a value with this size in the source; None where it is not ``a * ((steps + b) // c) + d``."""
    count = _stages(lengths, size)
    if count is None or any(lengths.value(size, m) != count.total(m) for m in span(count)[1:]):
        return None
    return count


def _stages(lengths: Lengths, size: Size, by: int = 1, more: int = 0) -> Count | None:
    """``(size + more) // by``, or a count that is not: `count_by` compares it."""
    varying = [(symbols, factor) for symbols, factor in size.terms if symbols]
    plus = more + next((factor for symbols, factor in size.terms if not symbols), 0)
    if len(varying) != 1 or len(varying[0][0]) != 1 or varying[0][1] < 1:
        return None
    (symbol,), times = varying[0]
    if symbol == lengths.time:
        return Stage(Input(), times, plus, by=by)
    divided, inner = lengths.floor_of(symbol) or (None, 1)
    if divided is None:
        return None
    within = plus // times if plus % times == 0 else 0  # in the floor, which may be below 0 without it
    source = _stages(lengths, divided, inner, within * inner)
    return None if source is None else Stage(source, times, plus - within * times, by=by)
