"""int8 files: products of rows with their own scales by weights with a scale for each output feature."""

from __future__ import annotations

from .int8_file import QuantizeResult, quantize

__all__ = ["QuantizeResult", "quantize"]
