"""Python's ``range`` of a size that is not fixed, as an index of a tensor: ``y[range(batch), lengths - 1]``.

Whatever else is done with it (a loop) asks for its numbers and so fixes the size, as in Python.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import is_concrete_int


class SymbolicRange:
    """A range of which an end goes by a size.

    It has no ``__getitem__``: torch takes the numbers of a sequence before any mode sees the index.
    """

    def __init__(self, *ends: Any) -> None:
        self.ends = ends

    @property
    def tensor(self) -> Tensor:
        """Its numbers, int64."""
        return torch.arange(*self.ends)

    def fixed(self) -> builtins.range:
        """Python's own, which fixes the size."""
        return builtins.range(*map(operator.index, self.ends))

    def __iter__(self) -> Iterator[int]:
        """As of Python's own."""
        return iter(self.fixed())

    def __reversed__(self) -> Iterator[int]:
        """As of Python's own."""
        return reversed(self.fixed())

    def __len__(self) -> int:
        """As of Python's own."""
        return len(self.fixed())

    def __contains__(self, number: object) -> bool:
        """As of Python's own."""
        return number in self.fixed()


class _RangeMeta(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, (builtins.range, SymbolicRange))


class Range(metaclass=_RangeMeta):
    """Python's range, but for sizes that are not fixed."""

    def __new__(cls, *ends: Any) -> Any:
        """As Python's own."""
        return (SymbolicRange if any(map(is_symbolic, ends)) else builtins.range)(*ends)


def is_symbolic(number: Any) -> bool:
    """Whether a number is a size that is not fixed."""
    return isinstance(number, torch.SymInt) and not is_concrete_int(number)
