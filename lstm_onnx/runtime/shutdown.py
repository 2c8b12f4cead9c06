"""Handles the interpreter's exit and forked processes.

A thread that returns from ONNX Runtime after the interpreter has exited aborts the process (before Python 3.14).
So before the exit our own threads are joined, and the program's daemon threads finish their current run and then sleep.
A forked child has none of these threads: whatever relies on them raises an error there instead of waiting forever.  Nor
does it have those of ONNX Runtime, for which a session waits when it is freed; so there it is never freed.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from time import monotonic, sleep
from types import CodeType, FrameType
from typing import Any, NoReturn, Protocol, cast

from ..errors import RunError
from .tuning import EXIT_POLL_SECONDS, EXIT_QUIET_SECONDS, EXIT_UNCLEAR_SECONDS

_ORT = "onnxruntime_inference_collection.py"
_OURS = os.path.dirname(__file__)  # noqa: PTH120 - without pathlib
_RUNS: set[CodeType] = set()
"""Functions that call ONNX Runtime without its Python wrapper."""
_ending = False
"""Whether no new thread may be started."""
_joined = False
"""Whether our own threads have ended."""


class Threaded(Protocol):
    """An object that owns threads."""

    def end_threads(self) -> None:
        """End and join them; the interpreter is about to exit."""


class Forking(Protocol):
    """An object whose locks or threads do not survive a fork."""

    def forked(self) -> None:
        """Called in the child process, after the fork."""


class Sleeping(Protocol):
    """An object that calls ONNX Runtime in any thread."""

    def let_sleep(self) -> None:
        """From now on make every thread but the main one sleep at its next call; see `Gate`."""


_threaded: weakref.WeakSet[Any] = weakref.WeakSet()
_sleeping: weakref.WeakSet[Any] = weakref.WeakSet()
_forking: weakref.WeakSet[Any] = weakref.WeakSet()
_sessions: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(
    *, threaded: Threaded | None = None, sleeping: Sleeping | None = None, forking: Forking | None = None
) -> None:
    """Notify an object, as long as it lives, when the interpreter exits or the process forks."""
    for known, item in ((_threaded, threaded), (_sleeping, sleeping), (_forking, forking)):
        if item is not None:
            known.add(item)


def opened(session: Any) -> Any:
    """Record that a session is open, and return it."""
    _sessions.add(session)
    return session


def calls_onnxruntime(function: Any) -> None:
    """Register a function that calls ONNX Runtime directly."""
    _RUNS.add(function.__code__)


def require_running(what: str) -> None:
    """Refuse to start threads that would no longer be joined (RunError)."""
    if _ending:
        if not _is_main():
            _sleep_for_ever()
        raise RunError(f"the interpreter is exiting, so {what} can no longer be started")


def sleep_if_ending() -> None:
    """Never return, except in the main thread, once the interpreter is exiting and our own threads have ended."""
    if _joined and not _is_main():
        _sleep_for_ever()


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _sleep_for_ever() -> NoReturn:
    while True:
        sleep(3600)


class Gate:
    """Replaces a session while the interpreter exits: only the main thread gets through."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        """The session's attribute."""
        sleep_if_ending()
        return getattr(self._session, name)


class LostLock:
    """Replaces a lock that was held when the process forked, or whose thread is not in the child."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __enter__(self) -> None:
        """Raise the error."""
        raise RunError(self._message)

    def __exit__(self, *_: object) -> None:
        """Never called, since `__enter__` raises."""


@atexit.register
def _end() -> None:
    """Before the interpreter exits."""
    global _joined, _ending
    _ending = True
    for item in list(_threaded):
        cast("Threaded", item).end_threads()
    _joined = True
    for item in list(_sleeping):
        cast("Sleeping", item).let_sleep()
    _wait_for_runs()


def _wait_for_runs() -> None:
    """Wait until no thread is in ONNX Runtime: a thread that returns reaches a `Gate` before it can call again."""
    own = threading.get_ident()
    started = quiet_since = monotonic()
    while True:
        others = [frame for thread, frame in sys._current_frames().items() if thread != own]
        near = [frame for frame in others if _is_near(frame)]
        now = monotonic()
        if any(frame.f_code in _RUNS or frame.f_code.co_filename.endswith(_ORT) for frame in others):
            quiet_since = now
        elif not near or (now - quiet_since > EXIT_QUIET_SECONDS and now - started > EXIT_UNCLEAR_SECONDS):
            return
        sleep(EXIT_POLL_SECONDS)


def _is_near(frame: FrameType) -> bool:
    """Whether a thread is in this package, other than asleep forever."""
    if frame.f_code is _sleep_for_ever.__code__:
        return False
    above: FrameType | None = frame
    while above is not None:
        if above.f_code.co_filename.startswith(_OURS):
            return True
        above = above.f_back
    return False


def _forked() -> None:
    if _sessions:
        import ctypes

        for session in _sessions:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))  # not freed even at the interpreter's exit
        _sessions.clear()
    for item in list(_forking):
        cast("Forking", item).forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
