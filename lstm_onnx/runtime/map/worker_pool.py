"""Threads that run tasks and hand back what came of each part, as it is done."""

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


class Workers(Generic[Task, Result]):
    """`count` threads, which start with the first task and end with `close`.

    ONNX Runtime gives up the interpreter's lock while it runs, so threads use every core.

    Args:
        count: how many.
        make: called in each thread for what does its tasks: from a task to its parts' numbers and
            results, or the errors that took their place.
        parts: the numbers of a task's parts, should its work fail as a whole.
    """

    def __init__(
        self, count: int, make: Callable[[], Work[Task, Result]], parts: Callable[[Task], Iterable[int]]
    ) -> None:
        self._count = count
        self._make = make
        self._parts = parts
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._changed = threading.Condition()
        self._results: dict[int, Result | Exception] = {}
        self._done = self._told = 0
        self._lost = ""
        watch(threaded=self, forking=self)

    def submit(self, tasks: Iterable[Task]) -> None:
        """Have `tasks` done, in their order, after those that were submitted before.

        Raises:
            RunError: the process was forked since they began, or the interpreter is ending.
        """
        self._require_threads()
        for task in tasks:
            self._tasks.put(task)
        with self._changed:  # or the interpreter's end could come between two of them
            while len(self._threads) < self._count and not self._closed:
                thread = threading.Thread(target=self._loop, name=f"lstm-onnx map {len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def ready(self, part: int) -> bool:
        """Whether a part is done."""
        return part in self._results

    def take(self, part: int, told: Callable[[int], object] | None = None) -> Result | Exception:
        """The result of a part that was submitted, which is forgotten with this; waits until it is done.

        `told` is called, in this thread, with how many parts are done whenever that changed.

        Raises:
            RunError: the process was forked since they began, or the interpreter is ending.
        """
        while True:
            if part not in self._results:
                self._require_threads()
            with self._changed:
                while part not in self._results and (told is None or self._done == self._told):
                    self._changed.wait()
                done, there = self._done, part in self._results
                result = self._results.pop(part) if there else None
            if told is not None and done != self._told:
                self._told = done
                told(done)
            if there:
                return result  # type: ignore[return-value]  # it is there

    def close(self) -> None:
        """Drop what was not begun, and wait for the threads to end."""
        if self._lost:
            return
        with self._changed:
            self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def end_threads(self) -> None:
        """See `shutdown`: the interpreter is ending."""
        self.close()

    def forked(self) -> None:
        """In a forked child the threads are not there, and what they held is not let go."""
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
            try:
                work = work or self._make()
                found = work(task)
            except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for the part
                found = dict.fromkeys(self._parts(task), error)
            with self._changed:
                self._results.update(found)
                self._done += len(found)
                self._changed.notify()
            del task, found  # or an idle thread would keep its last batch
