"""Models on sequences that arrive in chunks: the time axis followed through a graph, and graphs made to stream."""

from __future__ import annotations

from .convert import StreamingResult, make_streaming
from .follow import TimeAxis, follow_time

__all__ = ["StreamingResult", "TimeAxis", "follow_time", "make_streaming"]
