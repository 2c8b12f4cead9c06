"""Modules that hold things, in one dict: each is made by a function without arguments and takes x (batch, time, 3)."""

from . import computed_weights, contents, hooks, left_behind  # noqa: F401 - each adds its cases
from .base import CASES, LOG, SCALE, TOTALS, Net
from .left_behind import ClassList, NamedLists

__all__ = ["CASES", "LOG", "SCALE", "TOTALS", "ClassList", "NamedLists", "Net"]
