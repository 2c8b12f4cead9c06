"""Compares the speed of PyTorch, plain ONNX Runtime and this runtime on a model, as ratios.

All candidates take turns on the same inputs, cores and threads.  `sizes` defines what is timed, `measure` how.
"""

from __future__ import annotations

from .compare import Settings, compare
from .report import BenchmarkReport, Comparison, LeftOut, Machine, Timing

__all__ = ["BenchmarkReport", "Comparison", "LeftOut", "Machine", "Settings", "Timing", "compare"]
