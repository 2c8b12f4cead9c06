"""Makes int8 files: products of rows, each with its own scale, by weights with a scale for each output feature."""

from __future__ import annotations

from .int8_file import QuantizeResult, quantize

__all__ = ["QuantizeResult", "quantize"]
