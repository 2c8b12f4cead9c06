"""Threads that each run a part of a batch on a separate core.

ONNX Runtime's own threads synchronize at every time step of an LSTM and, where they do not spin, sleep in between.
Measured on 2 cores, a step of 64 rows (I80 H256 L2) takes 1.96 ms on its two threads, 1.33 ms on one, and 0.7 ms as
two halves on one thread each.

Most of the remaining overhead is the time until a thread wakes up (20 to 40 us).  So the caller's thread computes a
part itself, which is larger by as much as it computes in that time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from ..shutdown import watch

Call = Callable[[], object]


def allowed_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """How many cores this process may use."""
    return len(allowed_cores())


class PinnedThreads:
    """Makes up to `count` calls at the same time, one of them in the caller's thread.

    With one call per core there is a thread for each core, pinned to it, and those of other cores than the caller's
    help: Linux may wake a thread on the core of the thread that wakes it, and the two then take turns (measured on 2
    cores, a step of 64 rows after a pause: 19.5 us per row, and 11.5 with pinned threads).

    Calls are not assigned to threads.  On a machine that is busy with other work a thread may wake up milliseconds
    later, and by then the caller has made its call.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: dict[int, _Worker] | None = None
        self._ended = False
        watch(threaded=self)

    def run(self, calls: Sequence[Call]) -> None:
        """Make all calls; the first error is raised after all have ended.

        After a signal's exception, such as KeyboardInterrupt, some may not have been made; none is still running.
        """
        if len(calls) == 1:
            calls[0]()
            return
        if self._workers is None:
            self._workers = {} if self._ended else _start(self.count)
            weakref.finalize(self, _stop, list(self._workers.values())).atexit = False
        own, task = current_core(), _Task(calls)
        helpers = [worker for core, worker in self._workers.items() if core != own][: len(calls) - 1]
        try:
            for worker in helpers:
                worker.tasks.put(task)
            task.make_calls()
            error = task.wait()
        except BaseException:  # from a signal, perhaps between taking a call and making it
            task.cancel()
            for worker in helpers:  # a thread takes the next call only after the one before
                later = _Task([_nothing])
                worker.tasks.put(later)
                later.wait()
            raise
        if error is not None:
            raise error

    def end_threads(self) -> None:
        """End and join them; from now on all calls are made in the caller's thread."""
        self._ended = True
        workers, self._workers = list((self._workers or {}).values()), {}
        _stop(workers)
        for worker in workers:
            worker.thread.join()

    def forked(self) -> None:
        """In a forked child the threads do not exist; new ones are started when needed."""
        self._workers = None


class _Task:
    """Calls that several threads take from one list, from its start."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._count = len(calls)
        self._left = deque(calls)
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()

    def make_calls(self) -> None:
        """Make calls until there is none left."""
        take, ended = self._left.popleft, self._ended.put
        while True:
            try:
                call = take()
            except IndexError:
                return
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - raised where all have ended
                ended(error)
            else:
                ended(None)

    def cancel(self) -> None:
        """Drop the calls that no thread has taken."""
        self._left.clear()

    def wait(self) -> BaseException | None:
        """Wait until every call has ended; returns the first error."""
        errors = [self._ended.get() for _ in range(self._count)]
        return next((error for error in errors if error is not None), None)


def _nothing() -> None:
    pass


class _Worker:
    """A thread that helps with tasks.

    Args:
        name: of the thread.
        core: the core to which it is pinned; None for any.
    """

    def __init__(self, name: str, core: int | None) -> None:
        self.tasks: SimpleQueue[_Task | None] = SimpleQueue()
        # A daemon, since it waits for ever; `shutdown` has it joined before the interpreter exits.
        self.thread = threading.Thread(target=_help, args=(core, self.tasks), name=name, daemon=True)
        self.thread.start()


def _help(core: int | None, tasks: SimpleQueue[_Task | None]) -> None:
    """A thread's loop: tasks until it gets None.  It keeps no pool alive."""
    _pin_to_core(core)
    while True:
        task = tasks.get()
        if task is None:
            return
        task.make_calls()
        del task


def _start(count: int) -> dict[int, _Worker]:
    """One pinned thread per core, by core, if `count` is the number of cores; otherwise `count` - 1 unpinned threads.

    Unpinned threads have negative numbers.
    """
    if hasattr(os, "sched_setaffinity") and count == cores() and current_core() is not None:
        return {core: _Worker(f"lstm-onnx pool {core}", core) for core in allowed_cores()}
    return {-index: _Worker(f"lstm-onnx pool {index}", None) for index in range(1, count)}


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.tasks.put(None)


def _core_function() -> Callable[[], int] | None:
    """C's sched_getcpu; None where the system has none."""
    try:
        function = ctypes.CDLL(None).sched_getcpu
    except (OSError, AttributeError, TypeError):  # TypeError: on Windows None names no library
        return None
    function.argtypes = ()
    return function


_sched_getcpu = _core_function()


def current_core() -> int | None:
    """The core on which this thread runs at the moment; None where the system does not say."""
    core = -1 if _sched_getcpu is None else _sched_getcpu()
    return core if core >= 0 else None


def _pin_to_core(core: int | None) -> None:
    """Pin the calling thread to a core, if this is permitted."""
    if core is not None:
        with contextlib.suppress(OSError):  # the process may no longer use that core
            os.sched_setaffinity(0, {core})
