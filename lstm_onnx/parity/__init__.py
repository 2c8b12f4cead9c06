"""Parity: does a file give what PyTorch gives, by PyTorch's own error as the yardstick?"""

from __future__ import annotations

from .criterion import K, TensorResult, compare
from .report import CaseResult, Report
from .verification import make_report, planned_cases, verify, verify_cases

__all__ = [
    "CaseResult",
    "K",
    "Report",
    "TensorResult",
    "compare",
    "make_report",
    "planned_cases",
    "verify",
    "verify_cases",
]
