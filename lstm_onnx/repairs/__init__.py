"""Repairs other tools' files: makes them faster, able to stream, and able to take batches of any size."""

from __future__ import annotations

from .file import RepairResult, repair

__all__ = ["RepairResult", "repair"]
