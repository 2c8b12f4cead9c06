"""Timing a model's file and module side by side in one run, as ratios.

PyTorch in its settings, plain ``InferenceSession.run`` and this runtime take turns over the same
inputs, on the same cores and threads; see `measure` for how, `grid` for what, and `peaks` for the
limits of the machine that times are told as fractions of.
"""

from __future__ import annotations

from .comparing import Settings, compare
from .report import Comparison, LeftOut, Machine, Memory, ParityReport, Timing

__all__ = ["Comparison", "LeftOut", "Machine", "Memory", "ParityReport", "Settings", "Timing", "compare"]
