"""Batching for servers: each caller awaits its own stream's next output, and waiting requests go together.

One thread steps the pool.  Callers on threads sleep on a lock of their own, and tasks of asyncio are woken
by one call into their event loop a batch, so what a request costs beside the model is a few microseconds.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from ...errors import InputError, RunError
from ..arguments import positive_integer, seconds
from ..model import Model
from ..pool.pool import Pool
from ..pool.state_memory import Arrays, Slot
from .request import Request
from .scheduler import LOST, Core


class BatchedStream:
    """One stream of a `Batcher`, and a context manager.  Made by `Batcher.open`.

    Its steps may be asked for from any thread and any event loop; they are made in the order in which
    they were asked for.
    """

    def __init__(self, batcher: Batcher, slot: Slot) -> None:
        self._batcher = batcher  # lives as long as its streams do
        self._core = batcher._core
        self.slot = slot
        self.closed = False
        self.listed = False
        self.pending: deque[Request] = deque()

    def step(self, x: Any) -> Any:
        """The next time steps; the calling thread sleeps until they are there.

        Args:
            x: what `Pool.step` takes for one slot; for a bare LSTM also ``(time, input_size)``.

        Returns:
            What `Pool.step` gives for one slot, without the batch axis where `x` has none.

        Raises:
            InputError: `x` does not fit, or the stream or its batcher is closed; nothing was run.
            RunError: ONNX Runtime failed on `x`, and the state is as it was; or the batcher was closed first.
            TimeoutError: it took longer than the batcher's `timeout`; the message says whether the stream
                moved on.
        """
        request = self._request(x)
        request.wake = wake = threading.Lock()
        wake.acquire()
        self._core.submit(request)
        timeout = self._batcher.timeout
        try:
            in_time = wake.acquire(True, -1 if timeout is None else timeout)
        except BaseException:
            if self._core.abandon(request):
                request.pass_on()
            raise
        if not in_time and not self._core.abandon(request):
            raise TimeoutError(_late(request, timeout))
        request.pass_on()
        return _answer(request)

    async def astep(self, x: Any) -> Any:
        """The same for a task of asyncio, on any event loop.

        A task that is cancelled takes its request back.  Where the step was running already, it is
        finished, and the stream has moved on.

        Raises:
            InputError, RunError, TimeoutError: as `step` does.
        """
        import asyncio

        request = self._request(x)
        request.loop = asyncio.get_running_loop()
        request.future = request.loop.create_future()
        self._core.submit(request)
        timeout = self._batcher.timeout
        try:
            if timeout is None:
                await request.future
            else:
                async with asyncio.timeout(timeout):
                    await request.future
        except TimeoutError:
            self._core.drop(request)
            raise TimeoutError(_late(request, timeout)) from None
        except BaseException:
            self._core.drop(request)
            raise
        return _answer(request)

    def submit(self, x: Any) -> Pending:
        """Ask for the next time steps and go on: for a thread that drives many streams, or asks ahead.

        While the queue is full it waits for room, for as long as the batcher's `timeout`.

        Raises:
            InputError: `x` does not fit, or the stream or its batcher is closed; nothing was run.
            TimeoutError: there was no room in time.
        """
        request = self._request(x)
        request.ahead = True
        request.wake = threading.Lock()
        request.wake.acquire()
        self._core.submit_ahead(request, self._batcher.timeout)
        return Pending(self, request)

    def _request(self, x: Any) -> Request:
        """A request for `x`, once it is known to fit."""
        core = self._core
        if core.only is not None and type(x) is np.ndarray:
            key = core.fits.get(((x.shape, x.dtype),))
            if key is not None:  # what small steps spend is spent here
                return Request(self, {core.only: x.copy()}, key)
        arrays, restore = core.pool.arrays(x, 1)
        flat = None
        spec = core.pool.model.spec
        if spec is not None and "input" in arrays and arrays["input"].ndim == 2:
            flat = 0 if spec.batch_first else 1
            arrays, _ = core.pool.arrays({**arrays, "input": np.expand_dims(arrays["input"], flat)}, 1)
        request = Request(self, *core.fitting(arrays))
        request.named, request.restore, request.flat = isinstance(x, Mapping), restore, flat
        return request

    def reset(self) -> None:
        """Start over.  Requests that still wait go on from there.

        Raises:
            InputError: the stream is closed.
        """
        self._core.pool.reset(self.slot)

    @property
    def state(self) -> Arrays:
        """A copy of the states, as `Pool.state` gives it; setting it is `Pool.set_state`."""
        return self._core.pool.state(self.slot)

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        self._core.pool.set_state(self.slot, values)

    def close(self) -> None:
        """End the stream, at any time and more than once.  Its requests that wait fail; a running step is finished."""
        self._core.close_stream(self)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """A stream that nobody holds any more would keep its slot, and have the others wait for it."""
        if not self.closed:
            self._core.close_stream(self)


class Pending:
    """A step that was asked for.  Made by `BatchedStream.submit`; its methods are those of a Future.

    From any thread, any number of times.
    """

    __slots__ = ("_request", "_stream")

    def __init__(self, stream: BatchedStream, request: Request) -> None:
        self._stream = stream
        self._request = request

    def done(self) -> bool:
        """Whether the output is there, or an error, or the step was cancelled."""
        return self._request.batch is not None or self._request.error is not None

    def cancel(self) -> bool:
        """Take the request back; False where the step is running or done."""
        request = self._request
        if not self._stream._core.drop(request):
            return False
        from concurrent.futures import CancelledError

        request.error = CancelledError("the step was cancelled before it ran; the stream is as it was")
        assert request.wake is not None  # noqa: S101 - submit has made it
        request.wake.release()
        return True

    def result(self, timeout: float | None = None) -> Any:
        """What `BatchedStream.step` gives; the calling thread sleeps until it is there.

        Args:
            timeout: seconds; None is for ever.

        Raises:
            InputError, RunError: as `step` does; or `timeout` is no time.
            concurrent.futures.CancelledError: it was cancelled.
            TimeoutError: it is not there yet; it is still asked for.
        """
        request = self._request
        if not self.done():
            if self._stream._core.lost:
                raise RunError(LOST)
            assert request.wake is not None  # noqa: S101 - submit has made it
            limit = -1 if timeout is None else seconds("timeout", timeout, threading.TIMEOUT_MAX)
            if not request.wake.acquire(True, limit):
                raise TimeoutError(f"no output within {timeout} s; the step is still asked for")
            request.wake.release()  # for who else waits
        return _answer(request)


class Batcher:
    """Steps the streams of many callers together, and a context manager.

    A batch goes as soon as every open stream waits, or `max_batch` of them do, and otherwise `window`
    seconds after the first.  Requests go together that have the same number of time steps and the same
    values in what is not for one stream alone.  An error reaches the caller whose input made it.

    Attributes:
        pool: the pool that is stepped.
        timeout: seconds until a caller gets a TimeoutError, or None.
    """

    def __init__(
        self,
        pool: Pool | Model,
        *,
        max_batch: int = 64,
        window: float = 0.002,
        queue: int = 1024,
        timeout: float | None = None,
    ) -> None:
        """Start the thread.

        Args:
            pool: the pool, whose slots are as many streams as can be open; or a model, for a pool of
                `max_batch` slots.
            max_batch: how many requests go together at most.
            window: seconds for which a request waits for company.
            queue: how many requests wait at most.  The callers of others wait for room first, in their order.
            timeout: seconds from the call to the output; None is for ever.

        Raises:
            InputError: an argument is not possible, or it cannot be told which rows of the model's inputs
                and outputs are whose.
        """
        max_batch, queue = positive_integer("max_batch", max_batch), positive_integer("queue", queue)
        window = seconds("window", window, threading.TIMEOUT_MAX)
        self.timeout = None if timeout is None else seconds("timeout", timeout, threading.TIMEOUT_MAX)
        if not isinstance(pool, (Pool, Model)):
            raise InputError(f"a batcher steps a pool or a model, and not a {type(pool).__name__}")
        self.pool = pool if isinstance(pool, Pool) else Pool(pool, max_batch)
        if self.pool.least > 1:
            raise InputError(
                f"{self.pool.model.path}: is only right from {self.pool.least} rows on, and a stream may have to "
                "step alone; use pool.step"
            )
        max_batch = min(max_batch, self.pool.largest or max_batch)
        self._core = Core(self.pool, max_batch, window, queue)
        self._core.start()
        # The thread holds the core alone, so that a batcher that nobody holds any more is found and ended.
        weakref.finalize(self, self._core.stop, drain=False).atexit = False

    def open(self) -> BatchedStream:
        """A new stream.

        Raises:
            InputError: all slots of the pool are open, or the batcher is closed.
        """
        return BatchedStream(self, self._core.open_slot())

    @property
    def waiting(self) -> int:
        """How many requests are queued; never more than `queue`."""
        return self._core.waiting

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._core.slots)

    def close(self, *, drain: bool = True) -> None:
        """End the thread, once what waits is finished; callers that ask from now on get an InputError.

        Args:
            drain: False finishes the running batch alone; what waits fails with a RunError.
        """
        self._core.stop(drain=drain)
        if not self._core.lost and threading.current_thread() is not self._core.thread:
            self._core.thread.join()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Finish what waits, and close."""
        self.close()

    def __repr__(self) -> str:
        """The model's path, and how much there is to do."""
        return f"<Batcher of {self.pool.model.path}: {len(self)} streams open, {self.waiting} requests waiting>"


def _answer(request: Request) -> Any:
    """What the caller is given, or gets raised."""
    if request.error is not None:
        raise request.error
    results: dict[str, Any] = request.results()
    if request.flat is not None:
        results["output"] = results["output"].squeeze(request.flat)
    if request.restore is not None:
        results = {name: request.restore(value) for name, value in results.items()}
    return next(iter(results.values())) if len(results) == 1 and not request.named else results


def _late(request: Request, timeout: float | None) -> str:
    if request.admitted:
        return f"no output within {timeout} s; the step was running already, and the stream moves on"
    return f"no output within {timeout} s; the request was taken back, and the stream is as it was"
