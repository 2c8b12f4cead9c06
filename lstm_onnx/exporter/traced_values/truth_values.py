"""Makes torch's SymBool, the truth of a comparison of traced numbers, behave as a bool does in PyTorch.

torch asks sympy, for which every number equals itself and is less than infinity.  That is not so for NaN, so tensors
compare such numbers instead.
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
        asked = is_user_code(sys._getframe(1).f_code.co_filename)  # torch's own comparison compares again
        if not asked or found is NotImplemented or not free_unbacked_symbols(number):
            return found
        known = not free_unbacked_symbols(found) or any(map(statically_known_true, (found, _negated(found))))
        return getattr(_as_tensor(number), name)(_as_tensor(other)) if known else found

    return compare


@contextlib.contextmanager
def truth_values(passes: Callable[[Any], bool | None], raised: list[Exception]) -> Iterator[None]:
    """A context in which checks of what ``item()`` gives pass, and a truth value equals 1 if true and 0 if not.

    torch's own truth values never equal a number, and raise an error when they are compared with True or False.

    Args:
        passes: returns the truth value with which a check in a frame passes; None where it is not a check.
        raised: collects the trace's own errors, since the user's code may catch them.
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
        # Not by sympy's negation: it turns k > 0 into k <= 0, which does not hold for NaN either.
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
