"""Running exported models: numpy and ONNX Runtime, neither torch nor onnx."""

from __future__ import annotations

from .model import Model
from .open_model import load
from .tensor_info import ValueInfo

__all__ = ["Model", "ValueInfo", "load"]
