"""Streams sequences in chunks: follows the time axis through a graph, and rewrites graphs so that they stream."""

from __future__ import annotations

from .convert import StreamingResult, make_streaming
from .follow import TimeAxis, follow_time

__all__ = ["StreamingResult", "TimeAxis", "follow_time", "make_streaming"]
