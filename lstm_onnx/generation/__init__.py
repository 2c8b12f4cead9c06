"""Makes files that generate: an ONNX Loop around a model's step, which feeds each step's output to the next."""

from __future__ import annotations

from .convert import GeneratingResult, make_generating

__all__ = ["GeneratingResult", "make_generating"]
