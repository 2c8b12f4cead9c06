"""Lengths at which a module with a loop may do something else: near the integers that its code can see."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ..copies.whole_numbers import attribute_numbers, code_numbers, sizes_of_tensors

LARGEST = 1000
"""Larger numbers are tried as lengths only while they are cheap, and not where they are sizes of weights."""
_LARGEST_OF_ALL = 20_000
_MOST_STEPS = 8000
"""The most steps, over all lengths, to try for numbers that are not in the code itself; as many for larger ones."""
_MOST_STEPS_IN_CODE = 40_000
"""The same for larger numbers that are in the code."""
_REGULAR = range(8, 257, 8)
"""Lengths that are always tried, since a step may compare with a computed number; a state may last for a few steps."""


def lengths_to_try(module: nn.Module) -> list[int]:
    """Each number, itself and plus 1 and 2, those in the code first; and some lengths at regular intervals."""
    numbers = code_numbers(module)
    code = _around(numbers)
    found = list(code)
    held = attribute_numbers(module)
    steps = 0
    for length in _around(held | sizes_of_tensors(module)):
        if length not in code:
            steps += length
            found += [length] if steps <= _MOST_STEPS else []
    sizes = {size for weight in module.parameters() for size in weight.shape}
    large = _above(numbers, _MOST_STEPS_IN_CODE), _above(held - numbers - sizes, _MOST_STEPS)
    return list(dict.fromkeys((*found, *large[0], *large[1], *_REGULAR)))


def _above(numbers: Iterable[int], most: int) -> list[int]:
    """Each larger number plus 1 and plus 2, while they add up to at most `most` steps."""
    found: list[int] = []
    for number in sorted(number for number in numbers if LARGEST < number <= _LARGEST_OF_ALL):
        found += [number + 1, number + 2] if sum(found) + 2 * number + 3 <= most else []
    return found


def _around(numbers: Iterable[int]) -> list[int]:
    return sorted({number + more for number in numbers if 0 < number <= LARGEST for more in (0, 1, 2)})
