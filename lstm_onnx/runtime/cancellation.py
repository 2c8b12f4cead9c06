"""Runs that can be ended: ONNX Runtime looks between two nodes whether a run is still wanted."""

from __future__ import annotations

import threading
from typing import Any, Self

from .loaded_model import LoadedModel
from .providers import NO_GRAPH, graph_options


class Cancellation:
    """Ends the runs that a thread starts in its block, ``with cancellation:``, once another thread calls `cancel`.

    ONNX Runtime looks before each node, those in the body of a Loop included; what runs then raises a RunError.  One
    LSTM over a long sequence runs to its end, and so does a Scan.
    """

    def __init__(self) -> None:
        self._options = graph_options(NO_GRAPH)
        self._before: Any = None

    def cancel(self) -> None:
        """End what runs, and whatever is started in the block from now on."""
        self._options.terminate = True

    def __enter__(self) -> Self:
        """From now on its runs can be ended."""
        self._before, _current.options = _current.options, self._options
        return self

    def __exit__(self, *_: object) -> None:
        """Runs of this thread cannot be ended any more."""
        _current.options = self._before


class _Current(threading.local):
    options: Any = None


_current = _Current()


def options_of(model: LoadedModel) -> Any:
    """The ``onnxruntime.RunOptions`` for a run of `model` in this thread; None where it needs none."""
    return model.run_options if _current.options is None else _current.options
