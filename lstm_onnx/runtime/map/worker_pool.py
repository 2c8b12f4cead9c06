"""Threads that run tasks, each of several parts whose results are taken one by one.

A ThreadPoolExecutor would run everything that is queued before the interpreter exits; these threads stop after the task
that they are running.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Generic, TypeVar

from ...errors import RunError
from ..shutdown import require_running, watch

Task = TypeVar("Task")
Result = TypeVar("Result")
Work = Callable[[Task], dict[int, "Result | Exception"]]


class WorkerPool(Generic[Task, Result]):
    """`count` threads, which start with the first task and end with `close`.

    ONNX Runtime releases the interpreter's lock while it runs, so threads use every core.

    Args:
        count: how many.
        make_worker: called in each thread; returns the function that maps a task to the numbers of its parts and
            their results or errors.
        parts: returns the numbers of a task's parts, for a task that fails as a whole.
    """

    def __init__(
        self, count: int, make_worker: Callable[[], Work[Task, Result]], parts: Callable[[Task], Iterable[int]]
    ) -> None:
        self._count = count
        self._make_worker = make_worker
        self._parts = parts
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._own_work: Work[Task, Result] | None = None  # of the caller's thread
        self._closed = False
        self._changed = threading.Condition()
        self._results: dict[int, Result | Exception] = {}
        self._done = self._reported = 0
        self._lost = ""
        watch(threaded=self, forking=self)

    def submit(self, tasks: Iterable[Task]) -> None:
        """Queue tasks.

        Raises:
            RunError: the process was forked since the threads started, or the interpreter is exiting.
        """
        self._require_threads()
        for task in tasks:
            self._tasks.put(task)
        with self._changed:  # or the interpreter could exit between two of them
            while len(self._threads) < self._count and not self._closed:
                thread = threading.Thread(target=self._loop, name=f"lstm-onnx map {len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def run_here(self, tasks: Iterable[Task]) -> None:
        """Run tasks in this thread: those that take less time than passing them to another one."""
        for task in tasks:
            self._own_work = self._run(self._own_work, task)

    def ready(self, part: int) -> bool:
        """Whether a part is done."""
        return part in self._results

    def take(self, part: int, progress: Callable[[int], object] | None = None) -> Result | Exception:
        """Wait for the result of a part, and remove it.

        Args:
            part: its number.
            progress: called in this thread with the number of parts done, whenever that has changed.

        Raises:
            RunError: the process was forked since the threads started, or the interpreter is exiting.
        """
        if progress is None and part in self._results:
            return self._results.pop(part)  # without the lock; no thread writes a part twice
        while True:
            if part not in self._results:
                self._require_threads()
            with self._changed:
                while part not in self._results and (progress is None or self._done == self._reported):
                    self._changed.wait()
                done, there = self._done, part in self._results
                result = self._results.pop(part) if there else None
            if progress is not None and done != self._reported:
                self._reported = done
                progress(done)
            if there:
                return result  # type: ignore[return-value]  # it is there

    def close(self) -> None:
        """Drop tasks that have not started, and wait for the threads to end."""
        if self._lost:
            return
        with self._changed:
            self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def end_threads(self) -> None:
        """See `shutdown`: the interpreter is exiting."""
        self.close()

    def forked(self) -> None:
        """In a forked child the threads do not exist, and locks that they held are never released."""
        self._lost = (
            "this process was forked while sequences were being mapped, and the threads are not in it; start it with "
            'multiprocessing\'s method "spawn", or call map in the child'
        )

    def _require_threads(self) -> None:
        if self._lost:
            raise RunError(self._lost)
        if self._closed or not self._threads:
            require_running("map")

    def _loop(self) -> None:
        work: Work[Task, Result] | None = None
        while (task := self._tasks.get()) is not None and not self._closed:
            work = self._run(work, task)
            del task  # or an idle thread would keep its last batch

    def _run(self, work: Work[Task, Result] | None, task: Task) -> Work[Task, Result] | None:
        """Run a task with this thread's `work`, which is made before its first one, and returned."""
        try:
            work = work or self._make_worker()
            results = work(task)
        except Exception as error:  # noqa: BLE001 - raised in the thread that takes the part
            results = dict.fromkeys(self._parts(task), error)
        with self._changed:
            self._results.update(results)
            self._done += len(results)
            self._changed.notify()
        return work
