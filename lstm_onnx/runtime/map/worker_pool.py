"""Threads that execute numbered tasks; outcomes are taken in the order in which the tasks end.

A ThreadPoolExecutor would run all queued tasks before the interpreter exits; these threads stop after the current one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

from ...errors import RunError
from ..shutdown import require_running, watch

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerPool(Generic[Task, Result]):
    """`count` threads, which start with the first task and end with `close`.

    ONNX Runtime releases the interpreter's lock while it runs, so threads use every core.  What they execute in Python
    should be short: a thread waits up to 5 ms (`sys.getswitchinterval`) for one that does not wait for anything.

    Args:
        count: the number of threads.
        work: called in a thread; returns a task's result.
    """

    def __init__(self, count: int, work: Callable[[Task], Result]) -> None:
        self._count = count
        self._work = work
        self._tasks: SimpleQueue[tuple[int, Task] | None] = SimpleQueue()
        self._ended: SimpleQueue[tuple[int, Result | Exception] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._closed = False
        self._lost = ""
        watch(threaded=self, forking=self)

    def submit(self, number: int, task: Task) -> None:
        """Queue a task.

        Raises:
            RunError: the process was forked since the threads started, or the interpreter is exiting.
        """
        self._require_threads()
        self._tasks.put((number, task))
        if len(self._threads) == self._count:
            return
        with self._starting:  # otherwise the interpreter could exit between two threads
            while len(self._threads) < self._count and not self._closed:
                thread = threading.Thread(target=self._loop, name=f"lstm-onnx map {len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def run(self, number: int, task: Task) -> None:
        """Execute a task in this thread."""
        self._ended.put((number, self._outcome(task)))

    def any_ended(self) -> bool:
        """Whether `next_ended` would not wait."""
        return not self._ended.empty()

    def next_ended(self) -> tuple[int, Result | Exception]:
        """Wait for a task to end; returns its number, and its result or error.

        Raises:
            RunError: the process was forked since the threads started, or the interpreter is exiting.
        """
        self._require_threads()
        ended = self._ended.get()
        if ended is None:
            self._require_threads()
            raise RunError("the threads of this map have ended")
        return ended

    def close(self) -> None:
        """Drop tasks that have not started, and wait for the threads to end."""
        if self._lost:
            return
        with self._starting:
            self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._ended.put(None)  # for a thread that waits for a result

    def end_threads(self) -> None:
        """See `shutdown`: the interpreter is exiting."""
        self.close()

    def forked(self) -> None:
        """In a forked child the threads do not exist, and locks that they held are never released."""
        self._lost = (
            "this process was forked while sequences were being mapped, and has no threads of the map; start it with "
            'multiprocessing\'s method "spawn", or call map in the child'
        )

    def _require_threads(self) -> None:
        if self._lost:
            raise RunError(self._lost)
        if self._closed or not self._threads:
            require_running("map")

    def _loop(self) -> None:
        while (item := self._tasks.get()) is not None and not self._closed:
            number, task = item
            self.run(number, task)
            del item, task  # otherwise an idle thread would keep them alive

    def _outcome(self, task: Task) -> Result | Exception:
        try:
            return self._work(task)
        except Exception as error:  # noqa: BLE001 - raised in the thread that takes it
            return error
