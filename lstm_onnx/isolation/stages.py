"""Progress messages from work in a child process to its parent; without effect in any other process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tell = Callable[[dict[str, Any]], None]
_tell: Tell | None = None


def tell_with(tell: Tell) -> None:
    """Mark this process as a child that sends its messages with `tell`."""
    global _tell
    _tell = tell


def inside() -> bool:
    """Whether this process is such a child."""
    return _tell is not None


def stage(name: str) -> None:
    """A new stage begins, with its own time limit; the parent names it if the process ends."""
    _say("stage", name)


def share(value: Any) -> None:
    """Send a part of the result, JSON-ready, which the parent keeps even if the process ends."""
    _say("shared", value)


def unlimited() -> None:
    """Lift the limits of time and memory for the rest of the work."""
    if _tell is not None:
        from .limits import lift_memory_limit

        lift_memory_limit()
    _say("unlimited", True)


def _say(kind: str, value: Any) -> None:
    if _tell is not None:
        _tell({kind: value})
