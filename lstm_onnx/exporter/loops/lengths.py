"""Lengths at which a module with a loop may do something else: near the whole numbers that its code can see."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..copies.whole_numbers import attribute_numbers, code_numbers, sizes_of_tensors

LARGEST = 1000
"""Larger numbers are not tried as lengths, but for some in the code itself."""
_LARGEST_IN_CODE = 20_000
_MOST_STEPS = 8000
"""The most steps, over all lengths, that are tried for numbers that are not in the code itself."""
_MOST_STEPS_IN_CODE = 40_000
"""The same for larger numbers that are."""
_REGULAR = range(8, 257, 8)
"""Tried in any case, since what a step compares with may be computed; a state remembers for a few steps."""


def lengths_to_try(module: nn.Module) -> list[int]:
    """Each number, that number plus 1 and plus 2, those from the code first; and some lengths at regular distances."""
    numbers = code_numbers(module)
    code = _around(numbers)
    found = list(code)
    steps = 0
    for length in _around(attribute_numbers(module) | sizes_of_tensors(module)):
        if length not in code:
            steps += length
            found += [length] if steps <= _MOST_STEPS else []
    steps = 0
    for number in sorted(number for number in numbers if LARGEST < number <= _LARGEST_IN_CODE):
        steps += 2 * number + 3
        found += [number + 1, number + 2] if steps <= _MOST_STEPS_IN_CODE else []
    return list(dict.fromkeys((*found, *_REGULAR)))


def _around(numbers: Iterable[int]) -> list[int]:
    return sorted({number + more for number in numbers if 0 < number <= LARGEST for more in (0, 1, 2)})
