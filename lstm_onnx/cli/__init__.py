"""The command line: one thin file a command.

Importing it imports next to nothing, so that `main` is there at once to see that an interrupt ends the command
and leaves no traceback.  click is imported by `main`; what a command needs is imported in its body, so that
``lstm-onnx --help`` answers at once.
"""

from __future__ import annotations

from .main import main

TYPE_CHECKING = False  # see `lstm_onnx`
if TYPE_CHECKING:
    from typing import Any

    from .group import cli

__all__ = ["cli", "main"]


def __getattr__(name: str) -> Any:
    """The group of commands, imported when it is first used (PEP 562)."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .group import cli

    return cli
