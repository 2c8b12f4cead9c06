"""Makes traced numbers, and torch's SymBool (the truth of a comparison), compute and compare as in PyTorch.

torch asks sympy, for which every number equals itself, is less than infinity, and minus itself is 0.  That is not so
for NaN, so tensors compare and compute such numbers instead.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    free_unbacked_symbols,
    statically_known_true,
)

from ..copies.caller_state import replaced
from ..user_code import is_user_code
from .remainders import COMPARED, DIVIDED, remainder_truth
from .value_checks import identity_line, require_no_identity

_negated: Any = torch.sym_not
_chosen: Any = torch.sym_ite
_COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
_ARITHMETIC = [
    f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow") for side in ("", "r")
]


def _as_tensor(number: Any) -> torch.Tensor:
    return torch.scalar_tensor(number, dtype=torch.float64)


def _is_asked(frame: FrameType) -> bool:
    """Whether the user's code computes; torch does so again, within its own functions."""
    return is_user_code(frame.f_code.co_filename)


def _compared(name: str) -> Callable[[Any, Any], Any]:
    own = getattr(torch.SymFloat, name)

    def compare(number: Any, other: Any) -> Any:
        found = own(number, other)
        if not _is_asked(sys._getframe(1)) or found is NotImplemented or not free_unbacked_symbols(number):
            return found
        known = not free_unbacked_symbols(found) or any(map(statically_known_true, (found, _negated(found))))
        return getattr(_as_tensor(number), name)(_as_tensor(other)) if known else found

    return compare


def _computed(name: str) -> Callable[[Any, Any], Any]:
    own = getattr(torch.SymFloat, name)

    def compute(number: Any, other: Any) -> Any:
        found = own(number, other)
        if not _is_asked(sys._getframe(1)) or found is NotImplemented:
            return found
        if free_unbacked_symbols([number, other]) <= free_unbacked_symbols(found):
            return found
        return getattr(_as_tensor(number), name)(_as_tensor(other)).item()

    return compute


def _counted(name: str) -> Callable[[Any, Any], Any]:
    own = getattr(torch.SymBool, name)

    def compute(symbol: Any, other: Any) -> Any:
        if not _is_asked(sys._getframe(1)) or not free_unbacked_symbols(symbol):
            return own(symbol, other)
        # torch's own method would ask for its truth value.
        return getattr(_chosen(symbol, 1, 0), name)(_chosen(other, 1, 0) if isinstance(other, torch.SymBool) else other)

    return compute


def _remainder(name: str) -> Callable[[Any, Any], Any]:
    own = getattr(torch.SymInt, name)

    def compute(size: Any, other: Any) -> Any:
        found = own(size, other)
        if isinstance(found, torch.SymInt) and type(other) is int:
            setattr(found, DIVIDED, (size, other))
        return found

    return compute


def _size_compared(name: str) -> Callable[[Any, Any], Any]:
    own = getattr(torch.SymInt, name)

    def compare(size: Any, other: Any) -> Any:
        found, frame = own(size, other), sys._getframe(1)
        if not isinstance(found, torch.SymBool) or not _is_asked(frame):
            return found
        setattr(found, COMPARED, (size, name, other))
        if free_unbacked_symbols(found):
            require_no_identity(frame)
            return found
        return bool(found) if identity_line(frame) else found  # a decision of the trace, as in an if

    return compare


def _ask_remainder(symbol: Any, frame: FrameType, rewrite: Callable[[Any], None], thread: int) -> None:
    """Let the user's code be rewritten that asks for the truth of a remainder of a size, or of a comparison with it."""
    asking: FrameType | None = frame
    if frame.f_code is torch.SymInt.__bool__.__code__:
        symbol, asking = frame.f_locals["self"], frame.f_back
    own = threading.get_ident() == thread
    if own and asking is not None and _is_asked(asking) and remainder_truth(symbol) is not None:
        rewrite(asking)


@contextlib.contextmanager
def truth_values(
    passes: Callable[[Any], bool | None], rewrite: Callable[[Any], None], raised: list[Exception]
) -> Iterator[None]:
    """A context in which checks of what ``item()`` gives pass, and a truth value counts as 1 if true and 0 if not.

    torch's own truth values never equal a number, and raise an error in arithmetic and beside True or False.

    Args:
        passes: returns the truth value with which a check in a frame passes; None where it is not a check.
        rewrite: called with the frame of the user's code that asks for the truth of a remainder of a size.
        raised: collects the trace's own errors, since the user's code may catch them.
    """
    kind: Any = torch.SymBool
    own, own_equal = kind.__bool__, kind.__eq__
    thread = threading.get_ident()

    def truth(symbol: Any) -> Any:
        _ask_remainder(symbol, sys._getframe(1), rewrite, thread)
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
        for owner, make, names in _REPLACED:
            for name in names:
                stack.enter_context(replaced(owner, name, make(name)))
        yield


_REPLACED: tuple[tuple[type, Callable[[str], Any], Sequence[str]], ...] = (
    (torch.SymFloat, _compared, _COMPARISONS),
    (torch.SymInt, _size_compared, _COMPARISONS),
    (torch.SymInt, _remainder, ("__mod__",)),
    (torch.SymFloat, _computed, _ARITHMETIC),
    (torch.SymBool, _counted, ("__mul__", "__rmul__", "__add__", "__radd__", "__sub__", "__rsub__")),
)
"""By their class, methods that `truth_values` replaces, and what makes the new ones."""
