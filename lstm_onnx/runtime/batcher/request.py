"""One step of one stream that a batcher was asked for, and the batch in which it ran."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import RunError
from ..arguments import seconds
from ..conversion import ToCallerType
from ..pool.state_memory import Arrays

if TYPE_CHECKING:
    import asyncio

    from .batcher import BatchedStream

LOST = (
    "the batcher was created before this process was forked, and its thread is not in it; start the process with "
    'multiprocessing\'s method "spawn", or create the batcher in the child'
)


@dataclass(slots=True, eq=False)
class Request:
    """One step of one stream.

    Attributes:
        stream: the stream.
        arrays: the inputs by name.
        key: requests with the same key can run in one batch.
        admitted: whether it is in the queue, and not waiting for room there.
        started: whether it was taken from the queue, by the thread or by who cancelled it.
        abandoned: whether the thread that waited for it gave up.
        woken: whether that thread was woken.
        by_name: whether the inputs were passed by name, so that the outputs are returned by name.
        to_caller_type: converts results to the type that was passed; None for numpy arrays.
        removed_axis: the batch axis that the input did not have.
        batch: the batch in which it ran; None before.
        index: its row there.
        error: what is raised for it.
        wake: the lock on which the calling thread sleeps.
        loop, loop_future: the event loop and the future of an asyncio task that waits for it.
        future: what `BatchedStream.submit` returned.
    """

    stream: BatchedStream
    arrays: Arrays
    key: Any
    admitted: bool = False
    started: bool = False
    abandoned: bool = False
    woken: bool = False
    by_name: bool = False
    to_caller_type: ToCallerType | None = None
    removed_axis: int | None = None
    batch: Batch | None = None
    index: int = 0
    error: Exception | None = None
    wake: threading.Lock | None = None
    loop: asyncio.AbstractEventLoop | None = None
    loop_future: asyncio.Future[None] | None = None
    future: StepFuture | None = None

    def answer(self) -> Any:
        """What the caller gets: the outputs, or an exception."""
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
        if self.to_caller_type is not None:
            results = {name: self.to_caller_type(value) for name, value in results.items()}
        return next(iter(results.values())) if len(results) == 1 and not self.by_name else results

    def wake_next(self) -> None:
        """Wake the next thread of the batch: each thread does this once it is awake."""
        if self.batch is not None:
            self.batch.wake_next()

    def resolve(self) -> None:
        """Set the result of `future`."""
        future = self.detach_future()
        try:
            answer = self.answer()
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            future.set_exception(error)
        else:
            future.set_result(answer)

    def detach_future(self) -> StepFuture:
        """Take `future` away: a caller that keeps it would otherwise keep the results of the whole batch."""
        assert self.future is not None  # noqa: S101 - the caller's condition
        future, self.future = self.future, None
        future._request = None
        return future


class StepFuture(Future[Any]):
    """The result of a step.  Created by `BatchedStream.submit`; its methods may be called from any thread."""

    def __init__(self, stream: BatchedStream, request: Request) -> None:
        super().__init__()
        self._stream = stream
        self._request: Request | None = request
        """None once it is done."""

    def cancel(self) -> bool:
        """Take the request back; False where the step is running or done."""
        request = self._request
        if request is None or not self._stream._scheduler.drop(request) or not super().cancel():
            return self.cancelled()
        request.detach_future()
        self.set_running_or_notify_cancel()  # so that concurrent.futures.wait sees it
        return True

    def result(self, timeout: float | None = None) -> Any:
        """What `BatchedStream.step` returns; the calling thread sleeps until then.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            InputError, RunError: as `step` does; or `timeout` is not possible.
            concurrent.futures.CancelledError: it was cancelled.
            TimeoutError: it is not done yet; it still waits for its turn.
        """
        try:
            return super().result(self._timeout(timeout))
        except CancelledError:
            raise CancelledError("the step was cancelled before it ran; the stream is unchanged") from None
        except TimeoutError:
            if self.done():
                raise
            raise TimeoutError(f"no output within {timeout} s; the step still waits for its turn") from None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error of the step, None where it has none; arguments and errors as for `result`."""
        return super().exception(self._timeout(timeout))

    def _timeout(self, timeout: float | None) -> float | None:
        """The validated timeout; in a forked child a step that is not done never will be."""
        if self.done():
            return timeout
        if self._stream._scheduler.lost:
            raise RunError(LOST)
        self._stream._scheduler.require_other_thread()
        return None if timeout is None else seconds("timeout", timeout, threading.TIMEOUT_MAX)


@dataclass(slots=True, eq=False)
class Batch:
    """The results of requests that ran together, and those whose threads still sleep.

    All woken at once, they would queue for the interpreter's lock, and most be put to sleep again.
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
