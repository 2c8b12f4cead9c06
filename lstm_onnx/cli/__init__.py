"""The command line, with one small file for each command.

Importing this imports almost nothing, so that `main` soon runs and an interrupt ends the command without a traceback.
`main` imports click, and a command's body imports what it needs, so that ``lstm-onnx --help`` answers at once.
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
