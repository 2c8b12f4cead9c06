"""Reads and writes data files, arrays by name in six formats, and runs models on them.

Importing this imports only NumPy; pyarrow, safetensors and the standard library's readers are imported by the call that
needs them.
"""

from __future__ import annotations

from .formats import FORMATS, Record, Records, format_of
from .read import read
from .write import write

__all__ = ["FORMATS", "Record", "Records", "format_of", "read", "write"]
