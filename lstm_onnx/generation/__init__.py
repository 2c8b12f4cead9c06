"""Files that generate: a step in an ONNX Loop, each time on what the step before gave."""

from __future__ import annotations

from .convert import GeneratingResult, make_generating

__all__ = ["GeneratingResult", "make_generating"]
