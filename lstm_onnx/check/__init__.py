"""Checks whether an ONNX file is fit for production: valid, dynamic, runnable on the provider, its states paired.

A file that cannot be read as ONNX at all, or a provider that is not available, is an error.  Everything that is wrong
with a readable file is a `Finding`, and so are errors of onnx and ONNX Runtime: what cannot be checked does not pass.
"""

from __future__ import annotations

from ..callable_package import make_callable
from .finding import Finding
from .isolated import check
from .report import CheckReport

__all__ = ["CheckReport", "Finding", "check"]

make_callable(__name__)
