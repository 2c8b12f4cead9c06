"""Axis sizes that depend on the number of time steps, with floors that can be compared."""

from __future__ import annotations

from math import gcd

from ..size import Size


class Lengths:
    """Sizes of the axes of one graph; floors are symbols whose content is known.

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

    def _inside(self, size: Size) -> tuple[Size, int] | None:
        symbols, factor = size.term or ((), 0)
        return self._floors.get(symbols[0]) if len(symbols) == 1 and factor == 1 else None

    def depends(self, size: Size) -> bool:
        """Whether the size depends on the number of time steps."""
        return self.time in size.names
