"""The requests that wait for a batch, and the streams whose next request is worth waiting for."""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from ..pool.state_memory import Slot
from .request import Request

if TYPE_CHECKING:
    from .batcher import BatchedStream


class RequestQueue:
    """Requests in the order in which they are run.  The caller of every method holds the scheduler's lock.

    A batch need not wait for a stream that is unlikely to ask within the window: for an idle one, or for one whose
    frames come at longer intervals.  So only these streams are expected, each for `window` seconds: one that was just
    opened, and one that was just answered and last time asked again within `window` seconds of an answer.

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
        self.ready: deque[BatchedStream] = deque()
        self.overflow: deque[Request] = deque()
        self.waiting = 0
        self.expected: dict[Slot, float] = {}

    def add(self, request: Request) -> bool:
        """Queue a request, or let it wait for room; whether it is queued."""
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

    def remove_stream(self, stream: BatchedStream) -> list[Request]:
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
        """Take back everything."""
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
        """A stream was opened, and may ask soon."""
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
