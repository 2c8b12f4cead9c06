"""Lanes: one-thread sessions side by side, each with its own rows of a batch.

ONNX Runtime's own threads meet at every time step of an LSTM, and where they do not spin they sleep in
between.  Measured on 2 cores, a step of 64 rows (I80 H256 L2) takes 1.96 ms on its two threads, 1.33 ms on
one, and 0.7 ms as two halves on a thread each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import FileError, ModelError
from .providers import open_session

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from .session import Model


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def single_session(model: Model) -> Any:
    """The session of `model`, or one like it whose runs stay in the thread that calls them.

    Where the file is gone since it was loaded it is the session itself: the same results, on threads
    that share the cores less well.

    Raises:
        ModelError: the file was changed since.
    """
    if model.provider == "cuda" or model.session.get_session_options().intra_op_num_threads == 1:
        return model.session
    try:
        session, _ = open_session(model.path, "cpu", 1)
    except FileError:
        return model.session
    if _identity(session) != _identity(model.session):
        raise ModelError(f"{model.path}: was changed since it was loaded; load it again")
    return session


def _identity(session: Any) -> tuple[object, ...]:
    values = [(arg.name, arg.type, arg.shape) for arg in (*session.get_inputs(), *session.get_outputs())]
    return session.get_modelmeta().custom_metadata_map, values


class Lanes:
    """Up to `count` calls at the same time: the first in the caller's thread, each other one in a thread that waits."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._others: ThreadPoolExecutor | None = None

    def run(self, calls: Sequence[Callable[[], object]]) -> None:
        """Make all calls; the first error of any is raised once every one has ended."""
        if len(calls) == 1:
            calls[0]()
            return
        if self._others is None:
            from concurrent.futures import ThreadPoolExecutor

            self._others = ThreadPoolExecutor(self.count - 1, thread_name_prefix="lstm-onnx lane")
        own, others = [calls[0]], []
        for call in calls[1:]:
            try:
                others.append(self._others.submit(call))
            except RuntimeError:  # the interpreter is ending, and no thread takes anything any more
                own.append(call)
        try:
            for call in own:
                call()
        finally:
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error
