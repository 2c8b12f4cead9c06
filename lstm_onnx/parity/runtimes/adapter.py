"""What an engine has to give, in its own process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
"""A file that is open: inputs by name to outputs by name.  Any exception is a run that failed."""


class Adapter(Protocol):
    """An engine; made with the number of threads, or None for its default."""

    version: str
    """Of the engine."""

    def open(self, path: str, outputs: Sequence[str], *, fixed: bool) -> Run:
        """A file, open.

        Args:
            path: the file.
            outputs: the names of its outputs, in their order.
            fixed: open it anew for the sizes of each run, for an engine that can be told them; others ignore it.

        Any exception is a file that cannot be opened.
        """
        ...

    def reason(self, error: Exception) -> str:
        """The part of the engine's message that says what is wrong."""
        ...
