"""Parity: does a file give what PyTorch gives, by PyTorch's own error as the yardstick?"""

from __future__ import annotations

from .criterion import K, TensorResult, compare
from .modules import ModuleVerification
from .report import CaseResult, Report
from .verification import LSTMVerification, make_report, verification_of, verify

__all__ = [
    "CaseResult",
    "K",
    "LSTMVerification",
    "ModuleVerification",
    "Report",
    "TensorResult",
    "compare",
    "make_report",
    "verification_of",
    "verify",
]
