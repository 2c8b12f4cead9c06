"""Files of other tools made faster, streamable, and open to batches of any size."""

from __future__ import annotations

from .file import RepairResult, repair

__all__ = ["RepairResult", "repair"]
