"""Whether an ONNX file is fit for production: valid, dynamic, runnable on the asked provider, states paired.

A file that cannot be read as ONNX at all, or a provider that is not there, is an error.  Everything
that is wrong with a readable file is a `Finding`, and so is whatever onnx or ONNX Runtime raise
about it: nothing that failed to be checked counts as passed.
"""

from __future__ import annotations

from ..callable_package import make_callable
from .isolated import check
from .report import CheckReport, Finding

__all__ = ["CheckReport", "Finding", "check"]

make_callable(__name__)
