"""The thread of a batcher, which runs requests in batches."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, RunError
from ..batch_axes import BatchAxes, require_batch
from ..cancellation import Cancellation
from ..pool.pool import Pool
from ..pool.state_memory import Arrays, Slot
from ..shutdown import LostLock, require_running, watch
from ..tensor_info import validated_feeds
from ..tuning import MAX_KNOWN_SIGNATURES
from .request import LOST, Batch, QueuedStream, Request, RequestQueue, group_by_key, resolve_loop_futures

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Scheduler:
    """Runs requests in batches, in the order of each stream's first request."""

    def __init__(self, pool: Pool, max_batch: int, window: float, queue: int) -> None:
        self.pool = pool
        self.queue = RequestQueue(max_batch, window, queue)
        self.axes = BatchAxes.of(pool.model, pool.axes, pool.output_names)
        self.known_shapes: dict[Any, Any] = {}  # each maps to itself, so that equal keys are identical objects
        self.only_input_name = (
            next(iter(pool.inputs)) if len(pool.inputs) == 1 and not pool.model.checks_numbers else None
        )
        # Reentrant, since the garbage collector may close an abandoned stream at any point of any thread.
        self.lock = threading.RLock()
        self.wake = threading.Condition(self.lock)
        self.slot_closed = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.sleeping = self.idle = False  # whether the thread sleeps; whether it does so until the next request
        self.slots: set[Slot] = set()
        self.slots_to_close: deque[Slot] = deque()
        self.closing = self.exiting = False
        self.on_batch: Callable[[int, float], object] | None = None
        self.lost = False
        self.running: list[Request] = []  # the requests of the running batch, and what cancels it
        self.cancellation = Cancellation()
        self.thread = threading.Thread(target=self.run_until_closed, name="lstm-onnx batcher", daemon=True)

    def start(self) -> None:
        """Start the thread (RunError where the interpreter is exiting)."""
        require_running("a batcher")
        with self.lock:  # otherwise the interpreter could exit in between
            watch(threaded=self, forking=self)
            if not self.closing:
                self.thread.start()

    def end_threads(self) -> None:
        """See `shutdown`.

        Only daemon threads can still be waiting, since others have been joined.  They are left asleep: they would print
        an error that nobody could act on.
        """
        if self.lost:
            return
        with self.lock:
            self.queue.clear()
            self.closing = self.exiting = True
            self.wake_thread()
            if self.thread.ident is None:
                return
        self.thread.join()

    def forked(self) -> None:
        """In a forked child the thread does not exist, and the locks may be held forever."""
        self.lost = self.closing = True
        self.lock = LostLock(LOST)  # type: ignore[assignment]  # it is used for nothing else

    # --- called by callers' threads --------------------------------------------------------------------------

    def batch_key(self, arrays: Arrays) -> tuple[Arrays, Any]:
        """A copy of a request's arrays, and the key shared by requests that can run in one batch.

        It is a copy, since a caller that gives up may write its next chunk into the same memory.
        """
        arrays = {name: array for name, array in arrays.items() if name != self.pool.last}
        shapes: tuple[Any, ...] = tuple([(array.shape, array.dtype) for array in arrays.values()])
        if shapes not in self.known_shapes or len(arrays) != len(self.pool.inputs):
            ending = {self.pool.last: np.zeros(1, np.int64)} if self.pool.last is not None else {}
            hint = "open a stream for each sequence"
            require_batch(self.pool.model, arrays, 1, carrier="each stream carries", hint=hint)
            arrays = validated_feeds(self.pool.model.inputs, {**arrays, **ending, **self.pool.initial_state})
            arrays = {name: arrays[name] for name in self.pool.inputs}
            if len(self.known_shapes) > MAX_KNOWN_SIGNATURES:
                self.known_shapes.clear()
        shapes = self.known_shapes.setdefault(shapes, shapes)
        copies = {name: array.copy() for name, array in arrays.items()}
        shared = [name for name in self.axes.shared if name != self.pool.last]
        return copies, (shapes, *[copies[name].tobytes() for name in shared]) if shared else shapes

    def require_other_thread(self) -> None:
        """Refuse to wait in the thread that would end the waiting."""
        if threading.get_ident() == self.thread.ident:
            raise InputError(
                "a callback of a step runs in the batcher's thread, where it cannot wait for a step",
                hint="call submit in it, and add a callback to its result",
            )

    def submit(self, request: Request) -> None:
        """Queue a request, or let it wait for room in the queue."""
        with self.lock:
            if self.exiting and threading.current_thread() is not threading.main_thread():
                request.started = True
                return  # a daemon thread, which sleeps until the interpreter has exited
            if self.closing:
                raise InputError("the batcher is closed")
            if request.stream.closed:
                raise InputError("the stream is closed")
            if self.queue.add(request) and self.sleeping and (self.idle or self.queue.is_full()):
                self.wake_thread()

    def submit_ahead(self, request: Request, timeout: float | None) -> None:
        """`submit` for a caller that does not wait for the result, and so waits here for room in the queue."""
        with self.lock:
            queue = self.queue
            if not self.closing and queue.waiting >= queue.limit:
                self.require_other_thread()
            if not self.room.wait_for(lambda: self.closing or queue.waiting < queue.limit, timeout):
                raise TimeoutError(
                    f"no room in the queue of {queue.limit} within {timeout} s; the request was not queued"
                )
            self.submit(request)

    def notify_room(self) -> None:
        """Wake those who wait for room in the queue; the caller holds the lock."""
        if self.queue.waiting < self.queue.limit:
            self.room.notify_all()

    def wake_thread(self) -> None:
        """Wake the thread; the caller holds the lock."""
        self.sleeping = False
        self.wake.notify()

    def drop(self, request: Request) -> bool:
        """Take back a request; False where it has started."""
        with self.lock:
            if request.started:
                return False
            request.started = True  # so that nobody else handles it
            self.queue.remove(request)
            self.notify_room()
            return True

    def abandon(self, request: Request) -> bool:
        """`drop` for a caller that stops waiting; returns whether its thread was woken and has to wake another."""
        self.drop(request)
        with self.lock:
            request.abandoned = True
            self.cancel_if_unneeded()
            return request.woken

    def cancel_if_unneeded(self) -> None:
        """Cancel the running batch once nobody needs its outputs and states; the caller holds the lock."""
        if self.running and all(request.abandoned and request.stream.closed for request in self.running):
            self.cancellation.cancel()

    def open_slot(self) -> Slot:
        """A slot of the pool; where all are open, wait for those that the thread is about to close."""
        while True:
            if self.exiting:
                require_running("a stream")
            with self.lock:
                if self.closing:
                    raise InputError("the batcher is closed")
                some_closing = bool(self.slots_to_close)
            try:
                slot = self.pool.open()
            except InputError:
                with self.lock:
                    if not (some_closing or self.slots_to_close):
                        raise
                    self.require_other_thread()
                    while self.slots_to_close and len(self.pool) >= self.pool.slots and not self.closing:
                        self.wake_thread()
                        self.slot_closed.wait()
            else:
                if self.register(slot):
                    return slot
                self.pool.close(slot)

    def register(self, slot: Slot) -> bool:
        """Add it to the open slots; False where the batcher was closed meanwhile."""
        with self.lock:
            if not self.closing:
                self.slots.add(slot)
                self.queue.expect_opened(slot)
            return not self.closing

    def close_stream(self, stream: QueuedStream) -> None:
        """Fail its requests; the thread closes the slot once no batch with it is running."""
        if self.lost:
            stream.closed = True
            return
        with self.lock:
            if stream.closed:
                return
            stream.closed = True
            failed = self.queue.remove_stream(stream)
            self.slots.discard(stream.slot)
            self.slots_to_close.append(stream.slot)
            self.cancel_if_unneeded()
            self.notify_room()
            self.wake_thread()
        self.fail(failed, InputError, "the stream was closed before this step ran")

    def stop(self, *, drain: bool) -> None:
        """Make the thread end."""
        if self.lost:
            return
        failed: list[Request] = []
        with self.lock:
            if not drain:
                failed = self.queue.clear()
            self.closing = True
            self.wake_thread()
            self.slot_closed.notify_all()
            self.room.notify_all()
        self.fail(failed, RunError, "the batcher was closed before this step ran; the stream is unchanged")

    # --- called by the thread ----------------------------------------------------------------------

    def run_until_closed(self) -> None:
        """Run batch after batch until the batcher is closed."""
        while self.run_once():
            pass
        with self.lock:
            self.slots_to_close.extend(self.slots)
            self.slots.clear()
        self.close_slots()

    def run_once(self) -> bool:
        """Wait for a batch and run it; a separate function, so that no local variable keeps a stream alive."""
        self.close_slots()
        self.wait()
        requests = self.pop_batch()
        for group in group_by_key(requests):
            for part in self.in_phase(group):
                self.run(part)
        return bool(requests) or not self.closing

    def close_slots(self) -> None:
        """Close the slots of closed streams."""
        while self.slots_to_close:
            with contextlib.suppress(InputError):  # the caller closed it through the pool
                self.pool.close(self.slots_to_close[0])
            with self.lock:
                self.slots_to_close.popleft()
                self.slot_closed.notify_all()

    def wait(self) -> None:
        """Wait until there are requests and no other stream is expected, or there is something else to do.

        Right after a batch it waits for the streams that it answered, without being woken by the first.
        """
        with self.lock:
            while not self.closing and not self.slots_to_close:
                left = self.queue.seconds_to_wait()
                self.idle = left == 0
                if self.idle and self.queue.ready:
                    break
                self.sleeping = True
                self.wake.wait(left or None)
            self.sleeping = False

    def pop_batch(self) -> list[Request]:
        """Take the next requests from the queue."""
        with self.lock:
            if self.slots_to_close and not self.closing:
                return []  # close them first, since callers may wait for their slots
            batch = self.queue.pop_batch()
            self.notify_room()
        return batch

    def run(self, group: list[Request]) -> None:
        """Run one batch; if it fails, each request alone, so that an error only reaches the caller that caused it."""
        group.sort(key=lambda request: request.stream.slot.index)  # the pool is fastest on slots in a constant order
        began = perf_counter()
        with self.lock:
            self.running, self.cancellation = group, Cancellation()
            self.cancel_if_unneeded()
        try:
            with self.cancellation:
                results = self.pool.step([request.stream.slot for request in group], self.batch_inputs(group))
        except Exception as error:  # noqa: BLE001 - any other end of the thread would leave its callers asleep
            if len(group) > 1:
                for request in group:
                    self.run([request])
                return
            group[0].error = error
            results = {}
        finally:
            self.running = []
        self.report_batch(len(group), perf_counter() - began)
        results = self.validated_results(group, results)
        if self.queue.window:
            with self.lock:
                self.queue.expect_answered(group)
        self.call_back(self.deliver, group, results)

    def report_batch(self, requests: int, seconds: float) -> None:
        """Call `on_batch`."""
        if self.on_batch is not None:
            self.call_back(self.on_batch, requests, seconds)

    def call_back(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call what calls functions of callers: no error in them may end the thread, which would leave all asleep."""
        try:
            function(*arguments)
        except BaseException:  # noqa: BLE001 - it may raise anything, also SystemExit
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))

    def in_phase(self, group: list[Request]) -> list[list[Request]]:
        """A group whose streams are all in one phase, or several such: see `Pool.phase`."""
        if not self.pool.has_phases:
            return [group]
        parts: dict[int, list[Request]] = {}
        for request in group:
            try:
                phase = self.pool.phase(request.stream.slot)
            except InputError:  # closed meanwhile: the step says so
                phase = -1
            parts.setdefault(phase, []).append(request)
        return list(parts.values())

    def batch_inputs(self, group: list[Request]) -> Arrays:
        """The inputs of a batch, concatenated."""
        if len(group) == 1:
            return group[0].arrays
        return {
            name: group[0].arrays[name]
            if axis is None
            else np.concatenate([request.arrays[name] for request in group], axis)
            for name, axis in self.axes.inputs.items()
            if name != self.pool.last
        }

    def validated_results(self, group: list[Request], results: Mapping[str, Any]) -> Mapping[str, Any]:
        """The results if they have one row per request; otherwise none, and an error for each request."""
        for name, axis in self.axes.outputs.items():
            if name in results and results[name].shape[axis : axis + 1] != (len(group),):
                for request in group:
                    request.error = RunError(
                        f"its output {name} has shape {results[name].shape} for {len(group)} streams",
                        path=self.pool.model.path,
                        name=name,
                    )
                return {}
        return results

    def fail(self, requests: list[Request], kind: type[Exception], message: str) -> None:
        """Set an error for each of `requests`."""
        for request in requests:
            request.started = True
            request.error = kind(message)
        self.deliver(requests, {})

    def deliver(self, requests: list[Request], results: Mapping[str, Any]) -> None:
        """Wake the callers: threads one after another, all tasks of an event loop by one call into it."""
        batch = Batch(results, self.axes.outputs, self.lock)
        loops: dict[AbstractEventLoop, list[Request]] = {}
        futures = []
        for index, request in enumerate(requests):
            request.index = index
            request.batch = batch  # from now on it is done
            if request.future is not None:
                futures.append(request)
            elif request.wake is not None:
                batch.sleeping.append(request)
            elif request.loop is not None:
                loops.setdefault(request.loop, []).append(request)
        batch.wake_next()
        for loop, waiting in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks with it
                loop.call_soon_threadsafe(resolve_loop_futures, waiting)
        with contextlib.ExitStack() as stack:  # which resolves all, whatever a callback raises
            for request in reversed(futures):  # last, since their callbacks run here
                stack.callback(request.resolve)
