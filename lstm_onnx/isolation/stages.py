"""Sends progress messages from work in a child process to its parent; does nothing in any other process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

_stream: IO[str] | None = None


def send_to(stream: IO[str]) -> None:
    """Mark this process as a child that sends its messages to `stream`, in lines of JSON."""
    global _stream
    _stream = stream


def inside() -> bool:
    """Whether this process is such a child."""
    return _stream is not None


def send(message: Mapping[str, Any]) -> None:
    """Send a message to the parent."""
    if _stream is not None:
        import json

        _stream.write(json.dumps(message) + "\n")
        _stream.flush()


def stage(name: str) -> None:
    """Start a new stage, which has its own time limit and is named in the error if the process ends."""
    send({"stage": name})


def share(value: Any) -> None:
    """Send a part of the result, JSON-ready, which the parent keeps even if the process ends."""
    send({"shared": value})


def unlimited() -> None:
    """Lift the limits of time and memory for the rest of the work."""
    if inside():
        from .limits import lift_memory_limit

        lift_memory_limit()
        send({"unlimited": True})
