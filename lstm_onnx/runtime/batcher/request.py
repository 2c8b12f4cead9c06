"""The requests of a batcher for steps of streams: one request, the queue, and the batch in which they ran."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..conversion import ToCallerType, as_passed, unchanged
from ..pool.state_memory import Arrays, Slot

if TYPE_CHECKING:
    import asyncio

LOST = (
    "the batcher was created before this process was forked, and its thread is not in it; start the process with "
    'multiprocessing\'s method "spawn", or create the batcher in the child'
)


class QueuedStream:
    """What the queue knows about a stream; its callers have a `BatchedStream`."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.closed = False
        self.listed = False  # whether it is one of the `ready` streams of the queue
        self.prompt = True  # whether its last request came soon after an answer; see `RequestQueue`
        self.answered = math.inf  # when; a request before the first answer is prompt
        self.pending: deque[Request] = deque()


@dataclass(slots=True, eq=False)
class Request:
    """One step of one stream.

    Attributes:
        stream: the stream.
        arrays: the inputs by name.
        key: requests with the same key can run in one batch.
        admitted: whether it is in the queue, rather than waiting for room there.
        started: whether it was taken from the queue, by the thread or by whoever cancelled it.
        abandoned: whether its caller no longer waits for it.
        woken: whether that thread was woken.
        by_name: whether the inputs were passed by name, so that the outputs are returned by name.
        to_caller_type: converts results to the type that was passed.
        removed_axis: the batch axis that the input did not have.
        batch: the batch in which it ran; None before.
        index: its row in the batch.
        error: the error to raise for it.
        wake: the lock on which the calling thread sleeps.
        loop, loop_future: the event loop and the future of an asyncio task that waits for it.
        future: the future that `BatchedStream.submit` returned.
    """

    stream: QueuedStream
    arrays: Arrays
    key: Any
    admitted: bool = False
    started: bool = False
    abandoned: bool = False
    woken: bool = False
    by_name: bool = False
    to_caller_type: ToCallerType = unchanged
    removed_axis: int | None = None
    batch: Batch | None = None
    index: int = 0
    error: Exception | None = None
    wake: threading.Lock | None = None
    loop: asyncio.AbstractEventLoop | None = None
    loop_future: asyncio.Future[None] | None = None
    future: Future[Any] | None = None

    def answer(self) -> Any:
        """The outputs for the caller, or an exception."""
        if self.error is not None:
            raise self.error
        assert self.batch is not None  # noqa: S101 - it has run
        row = slice(self.index, self.index + 1)
        results: dict[str, Any] = {  # copies, since a view would keep the whole batch in memory
            name: self.batch.results[name][(*(slice(None),) * axis, row)].copy()
            for name, axis in self.batch.axes.items()
        }
        if self.removed_axis is not None:
            results["output"] = results["output"].squeeze(self.removed_axis)
        results = as_passed(results, self.to_caller_type)
        return next(iter(results.values())) if len(results) == 1 and not self.by_name else results

    def wake_next(self) -> None:
        """Wake the next thread of the batch: each thread does this once it is awake."""
        if self.batch is not None:
            self.batch.wake_next()

    def resolve(self) -> None:
        """Set the result of `future`."""
        assert self.future is not None  # noqa: S101 - the caller's condition
        future, self.future = self.future, None
        try:
            answer = self.answer()
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            future.set_exception(error)
        else:
            future.set_result(answer)


@dataclass(slots=True, eq=False)
class Batch:
    """The results of requests that ran together, and those whose threads still sleep.

    If all were woken at once, they would queue for the interpreter's lock, and most would go back to sleep.
    """

    results: Mapping[str, Any]
    axes: Mapping[str, int]
    lock: threading.RLock
    sleeping: deque[Request] = field(default_factory=deque)

    def wake_next(self) -> None:
        """Wake the first thread that still waits."""
        with self.lock:
            while self.sleeping:
                request = self.sleeping.popleft()
                if not request.abandoned and request.wake is not None:
                    request.woken = True
                    request.wake.release()
                    return


def group_by_key(requests: list[Request]) -> list[list[Request]]:
    """The requests that can run in one batch, together."""
    if not requests:
        return []
    key = requests[0].key
    if all(request.key is key for request in requests):
        return [requests]
    groups: dict[Any, list[Request]] = {}
    for request in requests:
        groups.setdefault(request.key, []).append(request)
    return list(groups.values())


def resolve_loop_futures(requests: list[Request]) -> None:
    """Wake asyncio tasks; called in their event loop's thread."""
    for request in requests:
        if request.loop_future is not None and not request.loop_future.done():
            request.loop_future.set_result(None)


class RequestQueue:
    """Requests in the order in which they are run.  The caller of every method holds the scheduler's lock.

    A batch need not wait for a stream that is unlikely to send a request within the window: an idle one, or one whose
    frames come at longer intervals.  So only these streams are expected, each for `window` seconds: one that was just
    opened, and one that was just answered and whose last request came within `window` seconds of an answer.

    Attributes:
        max_batch: the largest number of requests in a batch.
        window: seconds.
        limit: the largest number of waiting requests.
        ready: the streams that have waiting requests, in the order of their first.
        overflow: requests that wait for room; not empty only while the queue is full.
        waiting: how many requests are queued.
        expected: the slots of expected streams, and the time until which each is, in the order of these times.
    """

    def __init__(self, max_batch: int, window: float, limit: int) -> None:
        self.max_batch = max_batch
        self.window = window
        self.limit = limit
        self.ready: deque[QueuedStream] = deque()
        self.overflow: deque[Request] = deque()
        self.waiting = 0
        self.expected: dict[Slot, float] = {}

    def add(self, request: Request) -> bool:
        """Queue a request, or let it wait for room; returns whether it is queued."""
        if self.waiting >= self.limit:
            self.overflow.append(request)
            return False
        self._admit(request)
        return True

    def _admit(self, request: Request) -> None:
        stream = request.stream
        request.admitted = True
        stream.pending.append(request)
        self.waiting += 1
        if not stream.listed:
            stream.listed = True
            self.ready.append(stream)
            if self.window:
                stream.prompt = monotonic() - stream.answered <= self.window
                self.expected.pop(stream.slot, None)

    def refill(self) -> None:
        """Queue requests that wait for room."""
        while self.overflow and self.waiting < self.limit:
            self._admit(self.overflow.popleft())

    def remove(self, request: Request) -> None:
        """Take back a request that has not started."""
        if not request.admitted:
            self.overflow.remove(request)
            return
        request.admitted = False
        stream = request.stream
        stream.pending.remove(request)
        self.waiting -= 1
        if not stream.pending:
            stream.listed = False
            self.ready.remove(stream)
        self.refill()

    def remove_stream(self, stream: QueuedStream) -> list[Request]:
        """Take back all requests of a stream, which is closed."""
        removed = list(stream.pending)
        stream.pending.clear()
        self.waiting -= len(removed)
        self.expected.pop(stream.slot, None)
        if stream.listed:
            stream.listed = False
            self.ready.remove(stream)
        late = [request for request in self.overflow if request.stream is stream]
        if late:
            self.overflow = deque(request for request in self.overflow if request.stream is not stream)
        self.refill()
        return removed + late

    def clear(self) -> list[Request]:
        """Take back all waiting requests."""
        removed = [request for stream in self.ready for request in stream.pending] + list(self.overflow)
        for stream in self.ready:
            stream.listed = False
            stream.pending.clear()
        for request in removed:
            request.started = True
        self.ready.clear()
        self.overflow.clear()
        self.waiting = 0
        return removed

    def pop_batch(self) -> list[Request]:
        """Take the first request of each of the first streams."""
        batch = []
        for _ in range(min(len(self.ready), self.max_batch)):
            stream = self.ready.popleft()
            request = stream.pending.popleft()
            request.started = True
            if request.future is not None:
                request.future.set_running_or_notify_cancel()
            batch.append(request)
            if stream.pending:
                self.ready.append(stream)
            else:
                stream.listed = False
        self.waiting -= len(batch)
        self.refill()
        return batch

    # --- which streams to wait for ------------------------------------------------------------------------

    def expect_opened(self, slot: Slot) -> None:
        """A stream was opened, and may soon send a request."""
        if self.window:
            self.expected[slot] = monotonic() + self.window

    def expect_answered(self, requests: list[Request]) -> None:
        """These requests were run, and are about to be answered."""
        now = monotonic()
        end = now + self.window
        for request in requests:
            stream = request.stream
            stream.answered = now
            if stream.prompt and not stream.listed and not stream.closed:
                self.expected.pop(stream.slot, None)  # so that it is the last one
                self.expected[stream.slot] = end

    def is_full(self) -> bool:
        """Whether a batch need not wait for anybody, as far as is known without asking the time."""
        return len(self.ready) >= self.max_batch or self.waiting >= self.limit or not self.expected

    def seconds_to_wait(self) -> float:
        """How long a batch should still wait; 0 where it should run, or where no stream is expected."""
        if self.expected:
            now = monotonic()
            while self.expected:
                slot, end = next(iter(self.expected.items()))
                if end > now:
                    break
                del self.expected[slot]
        if self.is_full():
            return 0.0
        return max(next(reversed(self.expected.values())) - monotonic(), 0.0)
