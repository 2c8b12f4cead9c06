"""Parity: does a file give what PyTorch gives, in units of PyTorch's own rounding error?

Reports and golden files work without torch, so modules that need it are imported lazily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .criterion import TensorResult, compare
from .public import verify
from .report import CaseResult, Cause, Location, MutantResult, ParityReport
from .tolerances import K

if TYPE_CHECKING:
    from .lstm.verification import LSTMVerification
    from .modules.verification import ModuleVerification
    from .verification import make_report, verification_of

__all__ = [
    "CaseResult",
    "Cause",
    "K",
    "LSTMVerification",
    "Location",
    "ModuleVerification",
    "MutantResult",
    "ParityReport",
    "TensorResult",
    "compare",
    "make_report",
    "verification_of",
    "verify",
]

_WITH_TORCH = {
    "LSTMVerification": "lstm.verification",
    "ModuleVerification": "modules.verification",
    "make_report": "verification",
    "verification_of": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
