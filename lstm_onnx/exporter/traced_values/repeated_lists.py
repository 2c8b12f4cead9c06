"""Lists multiplied by a size that is not fixed, ``[z] * x.size(1)``, for ``torch.cat`` and the like.

Such a list holds one period.  A function that joins it repeats the joined period in the graph; any other use asks for
all of its items and so fixes the size, as in Python.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import is_concrete_int

_JOINS = ("cat", "concat", "concatenate", "stack")
_USES = (
    *("__iter__", "__len__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__reversed__", "__eq__"),
    *("__add__", "__iadd__", "__mul__", "__rmul__", "__imul__", "__repr__", "append", "extend", "insert", "pop"),
    *("remove", "reverse", "sort", "copy", "count", "index", "clear"),
)


class RepeatedList(list[Any]):
    """A list whose items are repeated `times` times; until it is expanded, it holds one period."""

    def __init__(self, period: Sequence[Any], times: torch.SymInt) -> None:
        super().__init__(period)
        self.times: torch.SymInt | None = times

    def expand(self) -> None:
        """Hold all items, which fixes the size."""
        if self.times is not None:
            times, self.times = operator.index(self.times), None
            super().__imul__(times)

    def period(self) -> list[Any]:
        """The items that are repeated."""
        return list(list.__iter__(self))

    def __radd__(self, other: list[Any]) -> list[Any]:
        """Expand it first: Python's own method would read the items directly."""
        return other + list(self)


def _expanding(name: str) -> Callable[..., Any]:
    own = getattr(list, name)

    def method(self: RepeatedList, *args: Any, **kwargs: Any) -> Any:
        self.expand()
        return own(self, *args, **kwargs)

    return method


for _name in _USES:
    setattr(RepeatedList, _name, _expanding(_name))


def multiplied(own: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`own`, the multiplication of a size, extended to lists."""

    def product(size: torch.SymInt, other: Any) -> Any:
        if type(other) is list and other and not is_concrete_int(size):
            return RepeatedList(other, size)
        return own(size, other)

    return product


def expand_lists(*values: Any) -> None:
    """Expand such lists among the arguments of a function that reads a list's items directly."""
    for value in values:
        if isinstance(value, RepeatedList):
            value.expand()
        elif type(value) in (tuple, list):
            expand_lists(*value)


def joined(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor that `func` makes from such a list; None for other functions, or if it gets several such lists."""
    name = func.__name__
    place = 1 if name.startswith("new") else 0
    found = args[place] if len(args) > place else kwargs.get("tensors")
    if type(found) is not RepeatedList or found.times is None or "out" in kwargs:
        return None
    rest = {key: value for key, value in kwargs.items() if key != "tensors"}
    own: Tensor = func(*args[:place], found.period(), *args[place + 1 :], **rest)
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))) if name in _JOINS else 0
    repeats: list[Any] = [1] * own.dim()
    repeats[dim] = found.times
    return own.repeat(repeats)
