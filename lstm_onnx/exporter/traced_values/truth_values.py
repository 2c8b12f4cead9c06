"""Truth values of traced numbers, torch's SymBool: asked for their truth, and compared with Python's numbers.

Sympy, which torch asks, takes a number to be equal to itself and less than infinity, which NaN is not; tensors compare
such numbers.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    free_unbacked_symbols,
    statically_known_true,
)

from ..copies.caller_state import replaced
from ..user_code import is_user_code

_negated: Any = torch.sym_not
_chosen: Any = torch.sym_ite
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")


def _as_tensor(number: Any) -> torch.Tensor:
    return torch.scalar_tensor(number, dtype=torch.float64)


def _compared(name: str) -> Callable[[Any, Any], Any]:
    own = getattr(torch.SymFloat, name)

    def compare(number: Any, other: Any) -> Any:
        found = own(number, other)
        asked = is_user_code(sys._getframe(1).f_code.co_filename)  # torch compares again, within its own comparison
        if not asked or found is NotImplemented or not free_unbacked_symbols(number):
            return found
        known = not free_unbacked_symbols(found) or any(map(statically_known_true, (found, _negated(found))))
        return getattr(_as_tensor(number), name)(_as_tensor(other)) if known else found

    return compare


@contextlib.contextmanager
def truth_values(passes: Callable[[Any], bool | None], raised: list[Exception]) -> Iterator[None]:
    """Within it, checks of what ``item()`` gives pass, and a truth value equals 1 where it is true, and 0 where not.

    torch's own never equals a number, and raises an error beside True and False.

    Args:
        passes: gives the truth value with which a check in a frame passes; None where it is not a check.
        raised: errors of the trace's own, which the user's code may catch.
    """
    kind: Any = torch.SymBool
    own, own_equal = kind.__bool__, kind.__eq__
    thread = threading.get_ident()

    def truth(symbol: Any) -> Any:
        try:
            return own(symbol)
        except GuardOnDataDependentSymNode as error:
            frame = sys._getframe(1)
            passed = passes(frame) if threading.get_ident() == thread else None
            if passed is None:
                if is_user_code(frame.f_code.co_filename):
                    raised.append(error)
                raise
            return passed

    def equal(symbol: Any, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return own_equal(symbol, other)
        # Not by sympy's negation: that of k > 0 is k <= 0, which does not hold for NaN either.
        return symbol if other == 1 else _as_tensor(_chosen(symbol, 1, 0)) == 0 if other == 0 else False

    def unequal(symbol: Any, other: Any) -> Any:
        if isinstance(other, (int, float)):
            return equal(symbol, 1 - other) if other in (0, 1) else True
        found = own_equal(symbol, other)
        return found if found is NotImplemented else _negated(found)

    with contextlib.ExitStack() as stack:
        for name, value in (("__bool__", truth), ("__eq__", equal), ("__ne__", unequal)):
            stack.enter_context(replaced(kind, name, value))
        for name in _COMPARISONS:
            stack.enter_context(replaced(torch.SymFloat, name, _compared(name)))
        yield
