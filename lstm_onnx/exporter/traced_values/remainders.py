"""An ``if`` on the remainder of a size, such as ``if x.shape[1] % 2: x = F.pad(x, (0, 1))``.

A trace would take the branch of the example's size.  The condition is a size that is 0 or 1, so both branches can be
computed: of two numbers the chosen one is ``other + (one - other) * truth``, and of two tensors that differ in the size
of one axis it is a part of both, one after the other.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, statically_known_true

_negated: Any = torch.sym_not
COMPARED = "_lstm_onnx_compared"
"""The attribute of torch's SymBool with the size, the comparison's name and the other number."""
DIVIDED = "_lstm_onnx_divided"
"""The attribute of torch's SymInt, a remainder, with the size and the divisor."""
_CHOSEN = "_lstm_onnx_chosen"
"""The attribute of torch's SymInt, one of two whole numbers, with the condition and both."""


@dataclass(frozen=True)
class RemainderTruth:
    """Whether a condition on a remainder holds: `number` is a size that is 1 if so, otherwise 0."""

    number: Any

    @property
    def tensor(self) -> Tensor:
        """The same as a tensor."""
        return torch.scalar_tensor(self.number, dtype=torch.int64) != 0

    def __invert__(self) -> RemainderTruth:
        """``not`` it."""
        return RemainderTruth(1 - self.number)

    def __and__(self, other: Any) -> Any:
        """It ``and`` a bool, a tensor or another one."""
        if isinstance(other, RemainderTruth):
            return RemainderTruth(self.number * other.number)
        if isinstance(other, bool):
            return RemainderTruth(self.number * int(other))
        return self.tensor & other

    def __or__(self, other: Any) -> Any:
        """It ``or`` a bool, a tensor or another one."""
        if isinstance(other, (RemainderTruth, bool)):
            return ~(~self & (not other if isinstance(other, bool) else ~other))
        return self.tensor | other

    __rand__, __ror__ = __and__, __or__


def remainder_truth(value: Any) -> RemainderTruth | None:
    """The truth of a remainder of a size, or of its comparison with a number; None for anything else."""
    if isinstance(value, RemainderTruth):
        return value
    remainder, name, other = getattr(value, COMPARED, (value, "__ne__", 0))
    if type(other) is int and (chosen := getattr(remainder, _CHOSEN, None)) is not None:
        truth, *numbers = chosen
        first, second = (_holds(getattr(operator, name)(number, other)) for number in numbers)
        return None if first is None or second is None else (~truth | first) & (truth | second)
    size, divisor = getattr(remainder, DIVIDED, (None, 0))
    if size is None or divisor < 2 or not _is_open(remainder) or type(other) is not int:
        return None
    if name in ("__eq__", "__ne__"):
        if not 0 <= other < divisor:
            return None
        # Of a size that is a multiple, T - T % 2, torch knows more when it is T // 2 * 2.
        size, least = size if other == 0 else size + (divisor - other), 1
    else:
        least = other + (name in ("__gt__", "__le__"))
        if not 1 <= least < divisor:
            return None
    remainder = size - size // divisor * divisor
    # From 0 to the divisor, and as many more that only those from `least` on reach it.
    found = RemainderTruth(remainder if divisor == 2 else (remainder + (divisor - least)) // divisor)
    return ~found if name in ("__eq__", "__lt__", "__le__") else found


def _holds(comparison: Any) -> bool | None:
    """Whether a comparison holds for all sizes; None if for some."""
    if isinstance(comparison, bool):
        return comparison
    known = map(statically_known_true, (comparison, _negated(comparison)))
    return next((outcome for outcome, found in zip((True, False), known, strict=True) if found), None)


def _is_open(remainder: torch.SymInt) -> bool:
    """Whether it is not known, as that of an axis of size ``2*time`` is."""
    return not remainder.node.expr.is_number and not free_unbacked_symbols(remainder)


def chosen_number(truth: RemainderTruth, one: Any, other: Any) -> Any:
    """One of two whole numbers."""
    found = other + (one - other) * truth.number
    if isinstance(found, torch.SymInt):
        setattr(found, _CHOSEN, (truth, one, other))  # for an if on it
    return found


def chosen_tensor(truth: RemainderTruth, one: Tensor, other: Tensor) -> Tensor | None:
    """One of two tensors; None if they differ in the sizes of several axes."""
    same = [statically_known_true(a == b) for a, b in zip(one.shape, other.shape, strict=True)]
    if all(same):
        return torch.where(truth.tensor, one, other)
    if same.count(False) > 1:
        return None
    axis = same.index(False)
    size = chosen_number(truth, one.shape[axis], other.shape[axis])
    steps = torch.arange(size, device=one.device) + other.shape[axis] * truth.number
    return torch.cat([other, one], axis).index_select(axis, steps)
