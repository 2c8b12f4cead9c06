"""Python's ``range`` of a size that is not fixed, used to index a tensor: ``y[range(batch), lengths - 1]``.

Any other use of it, such as a loop, needs its numbers.  They are known if all sizes give equally many, as
in ``range(0, steps, 512)`` on an axis of at most 512; otherwise asking for them fixes the size.
"""

from __future__ import annotations

import builtins
import dis
import operator
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import is_concrete_int, statically_known_true

from ..user_code import is_user_code
from .each_number import RetraceError


class SymbolicRange:
    """A range with an end that depends on a size.

    It has no ``__getitem__``: torch would read the items of a sequence before a function mode sees the index.
    """

    def __init__(self, *ends: Any) -> None:
        self.ends = ends

    @property
    def _ends(self) -> tuple[Any, Any, Any]:
        """Start, stop and step; start and step have Python's defaults."""
        return (0, *self.ends, 1) if len(self.ends) == 1 else (*self.ends, 1)[:3]

    @property
    def tensor(self) -> Tensor:
        """Its numbers, int64."""
        return torch.arange(*self.ends)

    def fixed(self) -> Sequence[int]:
        """Its numbers, some of which may depend on the size; Python's range, which fixes it, if their count does."""
        first, end, step = self._ends
        # A number that is computed from values in a tensor has no value in the example.
        if not is_symbolic(step) and all(not is_symbolic(item) or item.node.has_hint() for item in (first, end)):
            shown = builtins.range(*(item.node.hint if is_symbolic(item) else item for item in (first, end, step)))
            if self._always(first, end, step, len(shown)):
                return [first + step * number for number in builtins.range(len(shown))]
        return builtins.range(*map(operator.index, self.ends))

    @staticmethod
    def _always(first: Any, end: Any, step: int, count: int) -> bool:
        """Whether a range has `count` numbers at all sizes."""
        length = end - first if step > 0 else first - end
        within = statically_known_true(length <= count * abs(step))
        return within and (count == 0 or statically_known_true(length > (count - 1) * abs(step)))

    def __iter__(self) -> Iterator[int]:
        """As for Python's range; where ``list`` may have been called, the trace starts again with that replaced."""
        frame = sys._getframe(1)
        if is_user_code(frame.f_code.co_filename) and _calls(frame) and "list" not in frame.f_globals:
            raise RetraceError(frame, "list")
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


class RangeList(SymbolicRange):
    """A list of the numbers of a range."""

    def reverse(self) -> None:
        """As of a list."""
        first, end, step = self._ends
        count = (end - first + step - 1) // step if step > 0 else (first - end - step - 1) // -step
        self.ends = (first + (count - 1) * step, first - step, -step)

    def __getattr__(self, name: str) -> Any:
        """As for a list of fixed size; an AttributeError for Python's own protocols."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(list(self.fixed()), name)


class StandIn(type):
    """The metaclass of a class that replaces others, its `kinds`: their instances count as its own."""

    kinds: tuple[type, ...]

    def __instancecheck__(cls, value: Any) -> bool:
        """Whether a value is of one of its kinds."""
        return isinstance(value, cls.kinds)

    def __subclasscheck__(cls, kind: type) -> bool:
        """Whether a class is derived from one of its kinds."""
        return issubclass(kind, cls.kinds)


class Range(metaclass=StandIn):
    """Python's range, which also takes sizes that are not fixed."""

    kinds = (builtins.range, SymbolicRange)

    def __new__(cls, *ends: Any) -> Any:
        """As Python's own."""
        return (SymbolicRange if any(map(is_symbolic, ends)) else builtins.range)(*ends)


class List(builtins.list, metaclass=StandIn):  # type: ignore[type-arg]
    """Python's list, which also takes ranges of sizes that are not fixed."""

    kinds = (builtins.list, RangeList)

    def __new__(cls, *values: Any) -> Any:
        """As Python's own."""
        if len(values) == 1 and type(values[0]) is SymbolicRange:
            return RangeList(*values[0].ends)
        return builtins.list(*values)


def _calls(frame: FrameType) -> bool:
    """Whether a frame is executing a call, and not a loop of its own."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(("CALL", "PRECALL"))


def is_symbolic(number: Any) -> bool:
    """Whether a number is a size that is not fixed."""
    return isinstance(number, torch.SymInt) and not is_concrete_int(number)
