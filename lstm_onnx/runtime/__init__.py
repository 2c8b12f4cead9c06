"""Runs exported models with only numpy and ONNX Runtime, without torch and onnx."""

from __future__ import annotations

from .model import Model
from .open_model import load
from .tensor_info import ValueInfo

__all__ = ["Model", "ValueInfo", "load"]
