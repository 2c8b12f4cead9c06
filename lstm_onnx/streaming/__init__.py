"""May a model be fed chunk by chunk?  The time axis followed through an ONNX graph."""

from __future__ import annotations

from .follow import TimeAxis, follow_time

__all__ = ["TimeAxis", "follow_time"]
