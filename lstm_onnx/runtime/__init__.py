"""Running exported models: numpy and ONNX Runtime, neither torch nor onnx."""

from __future__ import annotations

from .session import Model, load
from .stream import Stream
from .values import ValueInfo

__all__ = ["Model", "Stream", "ValueInfo", "load"]
