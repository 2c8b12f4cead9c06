"""Rewrites a graph that takes whole sequences to one that takes them in chunks of any length."""

from __future__ import annotations

from .errors import REVERSE, NodeRefusedError, OwnStateError, RefusedError
from .facts import Rewritten, StreamOutput
from .rewrite import rewrite

__all__ = ["REVERSE", "NodeRefusedError", "OwnStateError", "RefusedError", "Rewritten", "StreamOutput", "rewrite"]
