"""A whole-sequence graph rewritten to one that takes the sequence in chunks of any length."""

from __future__ import annotations

from .facts import RefusedError
from .rewrite import Rewritten, StreamOutput, rewrite

__all__ = ["RefusedError", "Rewritten", "StreamOutput", "rewrite"]
