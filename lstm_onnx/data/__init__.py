"""The data files of ``lstm-onnx run``: arrays by name, read and written in six formats.

Importing this loads nothing but numpy; pyarrow, safetensors and the standard library's readers are
loaded by the call that needs them.
"""

from __future__ import annotations

from .formats import FORMATS, Record, Records, format_of
from .read import read
from .write import write

__all__ = ["FORMATS", "Record", "Records", "format_of", "read", "write"]
