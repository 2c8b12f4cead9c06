"""A whole-sequence graph rewritten to one that takes the sequence in chunks of any length."""

from __future__ import annotations

from .facts import RefusedError
from .rewrite import NodeRefusedError, Rewritten, StreamOutput, rewrite
from .source import read_initializers

__all__ = ["NodeRefusedError", "RefusedError", "Rewritten", "StreamOutput", "read_initializers", "rewrite"]
