"""Benchmarks of a model: PyTorch, plain ONNX Runtime and this runtime side by side, as ratios.

All candidates take turns on the same inputs, cores and threads.  `sizes` has what is timed, `measure` how.
"""

from __future__ import annotations

from .compare import Settings, compare
from .report import BenchmarkReport, Comparison, LeftOut, Machine, Timing

__all__ = ["BenchmarkReport", "Comparison", "LeftOut", "Machine", "Settings", "Timing", "compare"]
