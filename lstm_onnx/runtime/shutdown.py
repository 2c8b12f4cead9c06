"""The end of the interpreter, and processes that fork.

A thread that comes back from ONNX Runtime once the interpreter has ended aborts the process (until Python
3.14, which lets it hang).  So before it ends our own threads are joined, and the program's daemon threads are
let finish the run that they are in and then sleep.  A forked child has none of the threads: what relies on
them raises an error there instead of waiting for ever.
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

_ORT = "onnxruntime_inference_collection.py"
_OURS = os.path.dirname(__file__)  # noqa: PTH120 - without pathlib
_POLL = 0.002
_QUIET = 0.01
"""Seconds for which no thread may be seen in ONNX Runtime."""
_UNCLEAR = 0.1
"""Seconds for which a thread in the runtime, which may be about to call ONNX Runtime, is waited for."""
_RUNS: set[CodeType] = set()
"""Functions that call ONNX Runtime without its own Python wrapper."""
_ending = False
"""Whether nothing new is begun any more."""
_joined = False
"""Whether our own threads have ended, too."""


class Threaded(Protocol):
    """What has threads of its own."""

    def end_threads(self) -> None:
        """End and join them; the interpreter is about to end."""


class Forking(Protocol):
    """What has locks or threads that a forked child may miss."""

    def forked(self) -> None:
        """Called in the child."""


class Sleeping(Protocol):
    """What calls ONNX Runtime in any thread."""

    def let_sleep(self) -> None:
        """From now on let every thread but the main one sleep at its next call; see `Gate`."""


_threaded: weakref.WeakSet[Any] = weakref.WeakSet()
_sleeping: weakref.WeakSet[Any] = weakref.WeakSet()
_forking: weakref.WeakSet[Any] = weakref.WeakSet()


def watch(
    *, threaded: Threaded | None = None, sleeping: Sleeping | None = None, forking: Forking | None = None
) -> None:
    """Have an object called when the interpreter ends or the process forks, for as long as it lives."""
    for known, item in ((_threaded, threaded), (_sleeping, sleeping), (_forking, forking)):
        if item is not None:
            known.add(item)


def calls_onnxruntime(function: Any) -> None:
    """Note a function that calls ONNX Runtime itself."""
    _RUNS.add(function.__code__)


def require_running(what: str) -> None:
    """Refuse to start threads that nobody would join any more (RunError)."""
    if _ending:
        if not _is_main():
            _sleep_for_ever()
        raise RunError(f"the interpreter is ending, and {what} cannot be started any more")


def sleep_if_ending() -> None:
    """Do not come back once the interpreter is ending and our own threads have ended, but in its main thread."""
    if _joined and not _is_main():
        _sleep_for_ever()


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _sleep_for_ever() -> NoReturn:
    while True:
        sleep(3600)


class Gate:
    """In the place of a session while the interpreter ends: the main thread alone gets through."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        """What the session has."""
        sleep_if_ending()
        return getattr(self._session, name)


class LostLock:
    """In the place of a lock that a fork has left held, or whose thread it has left behind."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __enter__(self) -> None:
        """Say why not."""
        raise RunError(self._message)

    def __exit__(self, *_: object) -> None:
        """It was never entered."""


@atexit.register
def _end() -> None:
    """Before the interpreter ends."""
    global _joined, _ending
    _ending = True
    for item in list(_threaded):
        cast("Threaded", item).end_threads()
    _joined = True
    for item in list(_sleeping):
        cast("Sleeping", item).let_sleep()
    _wait_for_runs()


def _wait_for_runs() -> None:
    """Until no thread is in ONNX Runtime: each that comes back meets a `Gate` before it can go there again."""
    own = threading.get_ident()
    started = quiet_since = monotonic()
    while True:
        others = [frame for thread, frame in sys._current_frames().items() if thread != own]
        near = [frame for frame in others if _is_near(frame)]
        now = monotonic()
        if any(_is_in_run(frame) for frame in others):
            quiet_since = now
        elif not near or (now - quiet_since > _QUIET and now - started > _UNCLEAR):
            return
        sleep(_POLL)


def _is_in_run(frame: FrameType) -> bool:
    return frame.f_code in _RUNS or frame.f_code.co_filename.endswith(_ORT)


def _is_near(frame: FrameType) -> bool:
    """Whether a thread is in the runtime, and does not sleep there for good."""
    if frame.f_code is _sleep_for_ever.__code__:
        return False
    above: FrameType | None = frame
    while above is not None:
        if above.f_code.co_filename.startswith(_OURS):
            return True
        above = above.f_back
    return False


def _forked() -> None:
    for item in list(_forking):
        cast("Forking", item).forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
