"""Modules with Python loops over time, of the kinds that public code has: recurrent cells, decoders, filters, scans.

Each has what becomes of it: "node" (recurrent operators alone), "scan", or "refused".
"""

from . import cells, forms, models  # noqa: F401 - each adds its modules
from .base import ZOO, Entry, signal

__all__ = ["ZOO", "Entry", "signal"]
