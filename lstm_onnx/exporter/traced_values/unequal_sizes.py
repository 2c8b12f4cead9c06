"""An ``if`` on whether two sizes differ, one of which depends on the numbers in a tensor.

``if y.shape[1] != steps: y = F.pad(y, (0, 0, 0, steps - y.shape[1]))`` gives tensors of different sizes, but only where
the condition holds.  So the result always has the sizes of the branch that is taken then.
"""

from __future__ import annotations

from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

_COMPARED = "_lstm_onnx_compared_sizes"
"""The attribute of a condition's tensor: torch's SymBool that it was made of."""
_sym_ite: Any = torch.sym_ite
_sym_not: Any = torch.sym_not


def truth_of(asked: torch.SymBool) -> Tensor:
    """A condition on sizes as a tensor."""
    found = torch.scalar_tensor(_sym_ite(asked, 1, 0), dtype=torch.int64) != 0
    setattr(found, _COMPARED, asked)
    return found


def negation_of(condition: Tensor) -> Tensor:
    """Where a condition does not hold."""
    found, asked = ~condition, getattr(condition, _COMPARED, None)
    if asked is not None:
        setattr(found, _COMPARED, _sym_not(asked))
    return found


def chosen_of_sizes(condition: Tensor, one: Tensor, other: Tensor) -> Tensor | None:
    """One of two tensors that differ in the size of one axis; None unless they differ only where the branch is taken.

    Args:
        condition: from `truth_of` or `negation_of`, or another one.
        one: where it holds.
        other: where it does not hold.
    """
    asked = getattr(condition, _COMPARED, None)
    axes = [axis for axis in range(one.dim()) if not statically_known_true(one.shape[axis] == other.shape[axis])]
    if asked is None or len(axes) != 1:
        return None
    compared = asked.node.expr
    if isinstance(compared, sympy.Eq):
        one, other, condition = other, one, ~condition
    if not _equal_unless(compared, one.shape[axes[0]], other.shape[axes[0]]):
        return None
    # Where the condition holds, the numbers of the other tensor do not matter; elsewhere there is nothing to cut.
    return torch.where(condition, one, torch.cat([other, one], axes[0]).narrow(axes[0], 0, one.shape[axes[0]]))


def _equal_unless(compared: Any, one: Any, other: Any) -> bool:
    """Whether two sizes are known to be equal where a comparison of them does not say that they differ."""
    exact = [size.node.expr if isinstance(size, torch.SymInt) else size for size in (one, other)]
    if isinstance(compared, (sympy.Eq, sympy.Ne)):
        difference = compared.lhs - compared.rhs
        return any(sympy.expand(difference - sign * (exact[0] - exact[1])) == 0 for sign in (1, -1))
    if not isinstance(compared, (sympy.Lt, sympy.Gt)):
        return False
    difference = compared.lts - compared.gts  # of the smaller one and the larger one
    if sympy.expand(difference - (exact[0] - exact[1])) == 0:
        return statically_known_true(one <= other)
    return bool(sympy.expand(difference + (exact[0] - exact[1])) == 0) and statically_known_true(other <= one)
