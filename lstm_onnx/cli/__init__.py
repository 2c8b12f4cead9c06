"""The command line: one thin file a command.

Nothing but click is imported here or at the top of a command's file; what a command needs it imports
in its body, so that ``lstm-onnx --help`` answers at once.
"""

from __future__ import annotations

from .main import cli, main

__all__ = ["cli", "main"]
