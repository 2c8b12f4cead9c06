"""A whole-sequence graph rewritten to one that takes the sequence in chunks of any length."""

from __future__ import annotations

from .errors import NodeRefusedError, OwnStateError, RefusedError
from .facts import Rewritten, StreamOutput
from .rewrite import rewrite

__all__ = ["NodeRefusedError", "OwnStateError", "RefusedError", "Rewritten", "StreamOutput", "rewrite"]
