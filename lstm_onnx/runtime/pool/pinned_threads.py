"""Lanes: one-thread sessions side by side, each with its own rows of a batch.

ONNX Runtime's own threads meet at every time step of an LSTM, and where they do not spin they sleep in
between.  Measured on 2 cores, a step of 64 rows (I80 H256 L2) takes 1.96 ms on its two threads, 1.33 ms on
one, and 0.7 ms as two halves on a thread each.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import FileError, ModelError
from ..providers import open_session

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from ..model import Model


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def single_session(model: Model) -> Any:
    """The session of `model`, or one like it whose runs stay in the thread that calls them.

    Where the file is gone or another one since it was loaded, as on a server whose models are replaced
    while it runs, it is the session itself: the same results, on threads that share the cores less well.
    """
    if model.provider == "cuda" or model.session.get_session_options().intra_op_num_threads == 1:
        return model.session
    if model.stamp is None or stamp(model.file) != model.stamp:
        return model.session
    try:
        session, _ = open_session(model.file, "cpu", 1)
    except (FileError, ModelError):
        return model.session
    return session if stamp(model.file) == model.stamp else model.session


def stamp(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """What tells a file from one that takes its place; None where there is none.

    Weights in a file beside are not looked at.  Those of lstm-onnx are named by their digest, so that others
    come with another model file; who overwrites any other such file has to load the model again.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib would be a tenth of all that is imported
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Lanes:
    """Up to `count` calls at the same time, one of them in the caller's thread.

    Where there are as many lanes as cores, all are threads of their own that stay on a core each: Linux
    may wake a thread on the very core of the one that wakes it, and the two then run in turn (measured on
    2 cores, a step of 64 rows after a rest: 19.5 us a row, and 11.5 with each lane on its core).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._threads: list[ThreadPoolExecutor] = []

    def run(self, calls: Sequence[Callable[[], object]]) -> None:
        """Make all calls; the first error of any is raised once every one has ended."""
        if len(calls) == 1:
            calls[0]()
            return
        if not self._threads:
            self._threads = _started(self.count)
        own, others = list(calls[: max(0, len(calls) - len(self._threads))]), []
        for thread, call in zip(self._threads, calls[len(own) :], strict=False):
            try:
                others.append(thread.submit(call))
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

    def forked(self) -> None:
        """In a forked child the threads are not there; others are started."""
        self._threads = []


def _started(count: int) -> list[ThreadPoolExecutor]:
    """A thread for each lane, on a core of its own where there is one; or for each but the caller's."""
    from concurrent.futures import ThreadPoolExecutor

    def threads(on: Sequence[int | None]) -> list[ThreadPoolExecutor]:
        return [
            ThreadPoolExecutor(1, f"lstm-onnx lane {index}", initializer=_stay, initargs=(core,))
            for index, core in enumerate(on)
        ]

    if hasattr(os, "sched_setaffinity") and count == cores():
        return threads(sorted(os.sched_getaffinity(0)))
    return threads([None] * (count - 1))


def _stay(core: int | None) -> None:
    """Keep the calling thread on a core, where that may be had."""
    if core is not None:
        with contextlib.suppress(OSError):  # the process has lost it since
            os.sched_setaffinity(0, {core})
