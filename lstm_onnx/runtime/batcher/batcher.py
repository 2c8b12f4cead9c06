"""`Batcher`: dynamic batching for servers, where each caller waits for the next output of its own stream.

One thread steps the pool.  Calling threads sleep on a lock each, and asyncio tasks are woken by one call into their
event loop per batch, so that a request costs a few microseconds besides the model.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Self

import numpy as np

from ...errors import InputError
from ...terminal_text import one_line
from ..arguments import flag, positive_integer, seconds
from ..call_order import Call, CallOrder
from ..model import Model
from ..pool.pool import Pool
from ..pool.state_memory import Arrays, Slot
from .request import QueuedStream, Request
from .scheduler import Scheduler
from .step_future import StepFuture


class BatchedStream(QueuedStream):
    """One stream of a `Batcher`; a context manager that closes it.  Created by `Batcher.open`.

    Steps may be requested from any thread and any event loop; they run in the order of the requests.

    Attributes:
        slot: its slot in the pool.
        closed: whether it was closed.
    """

    def __init__(self, batcher: Batcher, slot: Slot) -> None:
        super().__init__(slot)
        self._batcher = batcher  # a batcher lives as long as its streams
        self._scheduler = batcher._scheduler
        self._order = CallOrder()

    def step(self, x: Any) -> Any:
        """The next time steps; the calling thread sleeps until they are done.

        Args:
            x: as for `Pool.step` with one slot; for a bare LSTM also ``(time, input_size)``.

        Returns:
            As from `Pool.step` for one slot, without the batch axis if `x` has none.

        Raises:
            InputError: `x` does not fit, or the stream or its batcher is closed; nothing was run.
            RunError: ONNX Runtime failed on `x`, and the state is unchanged; or the batcher was closed first.
            TimeoutError: it took longer than the batcher's `timeout`; the message says whether the stream
                advanced.
        """
        self._scheduler.require_other_thread()
        request = self._request(x)
        request.wake = wake = threading.Lock()
        wake.acquire()
        self._scheduler.submit(request)
        timeout = self._batcher.timeout
        try:
            in_time = wake.acquire(True, -1 if timeout is None else timeout)
        except BaseException:
            if self._scheduler.abandon(request):
                request.wake_next()
            raise
        if not in_time and not self._scheduler.abandon(request):
            raise TimeoutError(_late(request, timeout))
        request.wake_next()
        return request.answer()

    def astep(self, x: Any, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """`step` for an asyncio task, on any event loop.

        `x` is read in the call itself, not when its task begins, so its memory may be reused at once.  Steps run in the
        order of the calls; one that is awaited before an earlier one, which has no task, is refused.  A cancelled task
        withdraws its request.  A step that is already running is finished, and the stream advances.

        Args:
            x: as for `step`.
            timeout: in seconds; None for the batcher's own.

        Raises:
            InputError, RunError, TimeoutError: as `step` does.
        """
        request: Request | Exception
        try:
            request = self._request(x)
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            request = error
        call = self._order.call()
        return call.of(self._answered(request, timeout, call))

    async def _answered(self, request: Request | Exception, timeout: float | None, call: Call) -> Any:
        import asyncio

        timeout = self._batcher.timeout if timeout is None else seconds("timeout", timeout, threading.TIMEOUT_MAX)
        if isinstance(request, Exception):
            raise request
        await call.turn()
        request.loop = asyncio.get_running_loop()
        request.loop_future = request.loop.create_future()
        self._scheduler.submit(request)
        try:
            if timeout is None:
                await request.loop_future
            else:
                async with asyncio.timeout(timeout):
                    await request.loop_future
        except TimeoutError:
            self._scheduler.abandon(request)
            raise TimeoutError(_late(request, timeout)) from None
        except BaseException:
            self._scheduler.abandon(request)
            raise
        return request.answer()

    def submit(self, x: Any) -> StepFuture:
        """Request the next time steps without waiting: for a thread that drives many streams, or works ahead.

        If the queue is full, it waits for room, at most for the batcher's `timeout`.

        Returns:
            A ``concurrent.futures.Future`` whose result is that of `step`.  Its callbacks run in the batcher's thread:
            waiting for a step in one of them raises an InputError.

        Raises:
            InputError: `x` does not fit, or the stream or its batcher is closed; nothing was run.
            TimeoutError: there was no room in time.
        """
        request = self._request(x)
        request.future = future = StepFuture(self._scheduler, request)
        self._scheduler.submit_ahead(request, self._batcher.timeout)
        return future

    def _request(self, x: Any) -> Request:
        """A request for `x`, once it is validated."""
        scheduler = self._scheduler
        if scheduler.only_input_name is not None and type(x) is np.ndarray:
            key = scheduler.known_shapes.get(((x.shape, x.dtype),))
            if key is not None:  # the fast path
                return Request(self, {scheduler.only_input_name: x.copy()}, key)
        arrays, to_caller_type = scheduler.pool.arrays(x, 1)
        added_axis = None
        spec = scheduler.pool.model.spec
        if spec is not None and "input" in arrays and arrays["input"].ndim == 2:
            added_axis = 0 if spec.batch_first else 1
            arrays, _ = scheduler.pool.arrays({**arrays, "input": np.expand_dims(arrays["input"], added_axis)}, 1)
        request = Request(self, *scheduler.batch_key(arrays))
        request.by_name, request.to_caller_type = isinstance(x, Mapping), to_caller_type
        request.removed_axis = added_axis
        return request

    def reset(self) -> None:
        """Set the states to their initial values, from which waiting requests continue.

        Raises:
            InputError: the stream is closed.
        """
        self._scheduler.pool.reset(self.slot)

    @property
    def state(self) -> Arrays:
        """A copy of the states, as of `Pool.state`; setting it is `Pool.set_state`."""
        return self._scheduler.pool.state(self.slot)

    @state.setter
    def state(self, values: Mapping[str, Any]) -> None:
        self._scheduler.pool.set_state(self.slot, values)

    def close(self) -> None:
        """End the stream, at any time and more than once.  Waiting requests fail.

        A running step finishes, unless the callers of its batch have all given up and their streams are closed.
        """
        self._scheduler.close_stream(self)

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied."""
        raise TypeError("a stream of a Batcher cannot be pickled or copied; open another one")

    def __repr__(self) -> str:
        """The model's path, the slot and the waiting requests, on one line."""
        path = self._batcher.pool.model.path
        state = "closed" if self.closed else f"{len(self.pending)} requests waiting"
        return one_line(f"<BatchedStream of {path}: slot {self.slot.index}, {state}>")

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Close it, since a forgotten stream would keep its slot, and others would wait for its requests."""
        if not self.closed:
            self._scheduler.close_stream(self)


class Batcher:
    """Steps the streams of many callers together; a context manager that closes it.

    A batch runs as soon as it has `max_batch` requests, or one from each stream that is likely to send one soon, and
    at the latest `window` seconds after these streams were opened or answered.  Likely are new streams, and those whose
    last request came within `window` seconds of an answer; so nobody waits for idle streams, or for streams whose
    frames come at longer intervals.  Requests run together if they have the same number of time steps, and the
    same values in inputs without a batch axis.  An error is raised only for the caller whose input caused it.

    Attributes:
        pool: the pool that is stepped.
        timeout: seconds until a caller gets a TimeoutError, or None.
        on_batch: called in the batcher's thread after each batch, with the number of its requests and the seconds
            that it took; None for nothing.  Its exceptions go to `threading.excepthook`.
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
            pool: the pool, whose slots limit the number of open streams; or a model, for a pool of `max_batch`
                slots.
            max_batch: the largest number of requests in a batch.
            window: seconds for which a batch waits for streams that are likely to send a request; 0 to never wait.
            queue: the largest number of waiting requests; the callers of further ones wait for room, in order.
            timeout: seconds from the call to the output; None for no limit.

        Raises:
            InputError: an argument is not possible, or the batch axis of an input or output is not known.
        """
        max_batch, queue = positive_integer("max_batch", max_batch), positive_integer("queue", queue)
        window = seconds("window", window, threading.TIMEOUT_MAX)
        self.timeout = None if timeout is None else seconds("timeout", timeout, threading.TIMEOUT_MAX)
        if not isinstance(pool, (Pool, Model)):
            raise InputError(f"a batcher steps a pool or a model, not {type(pool).__name__}", name="pool")
        self.pool = pool if isinstance(pool, Pool) else pool.pool(max_batch)
        if self.pool.least > 1:
            raise InputError(
                f"is right only for {self.pool.least} rows or more, but a stream may have to be stepped alone",
                path=self.pool.model.path,
                hint="use pool.step",
            )
        max_batch = min(max_batch, self.pool.largest or max_batch)
        self._scheduler = Scheduler(self.pool, max_batch, window, queue)
        self._scheduler.start()
        # The thread refers only to the scheduler, so that a forgotten batcher is collected and its thread ends.
        weakref.finalize(self, self._scheduler.stop, drain=False).atexit = False

    @property
    def on_batch(self) -> Callable[[int, float], object] | None:
        """See `Batcher`."""
        return self._scheduler.on_batch

    @on_batch.setter
    def on_batch(self, function: Callable[[int, float], object] | None) -> None:
        if function is not None and not callable(function):
            raise InputError.of_argument("on_batch", function, "a function or None")
        self._scheduler.on_batch = function

    def open(self) -> BatchedStream:
        """A new stream.

        Raises:
            InputError: all slots of the pool are open, or the batcher is closed.
        """
        try:
            return BatchedStream(self, self._scheduler.open_slot())
        except InputError as error:
            if self._scheduler.closing:
                raise
            hint = "close one, or make the batcher of a larger pool: Batcher(model.pool(slots=...))"
            raise InputError(error.message, hint=hint) from error

    @property
    def waiting(self) -> int:
        """How many requests are queued, at most `queue`."""
        return self._scheduler.queue.waiting

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._scheduler.slots)

    def close(self, *, drain: bool = True) -> None:
        """End the thread after all waiting requests; later requests raise an InputError.

        Args:
            drain: False only finishes the running batch; waiting requests fail with a RunError.
        """
        self._scheduler.stop(drain=flag("drain", drain))
        if not self._scheduler.lost and threading.current_thread() is not self._scheduler.thread:
            self._scheduler.thread.join()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the waiting requests, and close."""
        self.close()

    def __reduce__(self) -> Any:
        """Refuse to be pickled or copied."""
        raise TypeError("a Batcher cannot be pickled or copied; pickle its model, and make another one")

    def __repr__(self) -> str:
        """The model's path, open streams and waiting requests, on one line."""
        return one_line(
            f"<Batcher of {self.pool.model.path}: {len(self)} streams open, {self.waiting} requests waiting>"
        )


def _late(request: Request, timeout: float | None) -> str:
    if request.admitted:
        return f"no output within {timeout} s; the step was already running, and the stream advances"
    return f"no output within {timeout} s; the request was withdrawn, and the stream is unchanged"
