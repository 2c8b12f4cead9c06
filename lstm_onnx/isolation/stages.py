"""What work in a child process tells its parent on the way; elsewhere nothing comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Tell = Callable[[dict[str, Any]], None]
_tell: Tell | None = None


def tell_with(tell: Tell) -> None:
    """From now on this process is a child, which tells with `tell`."""
    global _tell
    _tell = tell


def inside() -> bool:
    """Whether this process is such a child."""
    return _tell is not None


def stage(name: str) -> None:
    """What is done from here on; its time begins anew, and where the process ends, the parent names it."""
    _say("stage", name)


def share(value: Any) -> None:
    """A part of the result, JSON-ready, that the parent has even if the process ends."""
    _say("shared", value)


def unlimited() -> None:
    """From here on the work may take as long, and as much memory, as it likes."""
    if _tell is not None:
        from .limits import lift_memory_limit

        lift_memory_limit()
    _say("unlimited", True)


def _say(kind: str, value: Any) -> None:
    if _tell is not None:
        _tell({kind: value})
