"""What callers of a batcher wait for: one step of one stream each, and the batch that it went with."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..pool.state_memory import Arrays
from ..tensor_info import Restore

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

    from .batcher import BatchedStream


class Request:
    """One step of one stream: what it is given, who waits for it, and how it went.

    `named` is whether arrays by name were given, and so are wanted; `restore` turns results into the kind
    that was given, and `flat` is the batch axis that it lacked.
    """

    __slots__ = (
        "abandoned",
        "admitted",
        "ahead",
        "arrays",
        "batch",
        "error",
        "flat",
        "future",
        "index",
        "key",
        "loop",
        "named",
        "restore",
        "started",
        "stream",
        "wake",
        "woken",
    )

    def __init__(self, stream: BatchedStream, arrays: Arrays, key: Any) -> None:
        self.stream = stream
        self.arrays = arrays
        self.key = key
        self.admitted = self.started = self.ahead = self.abandoned = self.woken = False
        self.named = False
        self.restore: Restore | None = None
        self.flat: int | None = None
        self.batch: Batch | None = None
        self.index = 0
        self.error: Exception | None = None
        self.wake: threading.Lock | None = None
        self.loop: AbstractEventLoop | None = None
        self.future: Future[None] | None = None

    def results(self) -> Arrays:
        """Its row of each output: a copy, since a row that is kept would keep the batch."""
        assert self.batch is not None  # noqa: S101 - it has been woken
        place = slice(self.index, self.index + 1)
        return {
            name: self.batch.results[name][(*(slice(None),) * axis, place)].copy()
            for name, axis in self.batch.axes.items()
        }

    def pass_on(self) -> None:
        """Wake the next thread of the batch: each does so itself, as soon as it is awake."""
        if self.batch is not None:
            self.batch.wake_next()


class Batch:
    """What came of some requests together, and those of their threads that still sleep.

    Woken all at once they would queue for the interpreter's lock, and each be put to sleep again.
    """

    __slots__ = ("axes", "lock", "results", "sleeping")

    def __init__(self, results: Mapping[str, Any], axes: Mapping[str, int], lock: threading.RLock) -> None:
        self.results = results
        self.axes = axes
        self.lock = lock
        self.sleeping: deque[Request] = deque()

    def wake_next(self) -> None:
        """Wake the first that still waits."""
        with self.lock:
            while self.sleeping:
                request = self.sleeping.popleft()
                if not request.abandoned and request.wake is not None:
                    request.woken = True
                    request.wake.release()
                    return


def alike(requests: list[Request]) -> list[list[Request]]:
    """Those that go together."""
    if not requests:
        return []
    key = requests[0].key
    if all(request.key is key for request in requests):
        return [requests]
    groups: dict[Any, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.key, []).append(request)
    return list(groups.values())


def settle(requests: list[Request]) -> None:
    """Wake tasks; in their event loop's thread."""
    for request in requests:
        if request.future is not None and not request.future.done():
            request.future.set_result(None)
