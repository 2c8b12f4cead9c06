"""Cancels runs: ONNX Runtime checks between two nodes whether a run was cancelled."""

from __future__ import annotations

import threading
from typing import Any, Self

from .loaded_model import LoadedModel
from .providers import NO_GRAPH, graph_options


class Cancellation:
    """Cancels the runs that a thread starts in its block, ``with cancellation:``, once another thread calls `cancel`.

    ONNX Runtime checks before each node, including those in the body of a Loop; a cancelled run raises a RunError.  A
    single LSTM over a long sequence runs to its end, and so does a Scan.
    """

    def __init__(self) -> None:
        self._options = graph_options(NO_GRAPH)
        self._before: Any = None

    def cancel(self) -> None:
        """Cancel the current run, and all runs that are started in the block from now on."""
        self._options.terminate = True

    def __enter__(self) -> Self:
        """Make the runs of this thread cancellable."""
        self._before, _current.options = _current.options, self._options
        return self

    def __exit__(self, *_: object) -> None:
        """Make the runs of this thread uncancellable again."""
        _current.options = self._before


class _Current(threading.local):
    options: Any = None


_current = _Current()


def options_of(model: LoadedModel) -> Any:
    """The ``onnxruntime.RunOptions`` for a run of `model` in this thread; None where it needs none."""
    return model.run_options if _current.options is None else _current.options
