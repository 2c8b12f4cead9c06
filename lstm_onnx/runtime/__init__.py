"""Running exported models: numpy and ONNX Runtime, neither torch nor onnx."""

from __future__ import annotations

from .session import Model, load
from .values import ValueInfo

__all__ = ["Model", "ValueInfo", "load"]
