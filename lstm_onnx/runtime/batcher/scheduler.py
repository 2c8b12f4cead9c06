"""What a batcher's thread works on: the queue of requests, and the batches that it makes of them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, RunError
from ..pool.batch_axes import Rows
from ..pool.pool import Pool
from ..pool.state_memory import Arrays, Slot
from ..shutdown import LostLock, require_running, watch
from ..tensor_info import checked
from .request import Batch, Request, alike, settle

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from .batcher import BatchedStream

_MAX_FITS = 512
LOST = (
    "the batcher was made before this process was forked, and its thread is not in it; start the process with "
    'multiprocessing\'s method "spawn", or make the batcher in the child'
)


class Core:
    """What the thread works on: streams with requests, in the order of their first."""

    def __init__(self, pool: Pool, max_batch: int, window: float, queue: int) -> None:
        self.pool = pool
        self.max_batch = max_batch
        self.window = window
        self.queue = queue
        self.layout = Rows.of(pool)
        self.fits: dict[Any, Any] = {}  # to themselves: requests that go together have the very same key
        self.only = next(iter(pool.inputs)) if len(pool.inputs) == 1 and not pool.model.counts else None
        # Reentrant, since the garbage collector may close an abandoned stream at any point of any thread.
        self.lock = threading.RLock()
        self.wake = threading.Condition(self.lock)
        self.gone = threading.Condition(self.lock)
        self.room = threading.Condition(self.lock)
        self.wake_at = 0  # with how many ready streams the sleeping thread is woken; 0 while it is awake
        self.ready: deque[BatchedStream] = deque()
        self.overflow: deque[Request] = deque()  # holds some only while the queue is full
        self.waiting = 0
        self.slots: set[Slot] = set()
        self.leaving: deque[Slot] = deque()
        self.closing = self.exiting = False
        self.lost = False
        self.thread = threading.Thread(target=self.work, name="lstm-onnx batcher", daemon=True)

    def start(self) -> None:
        """Begin (RunError where the interpreter is ending)."""
        require_running("a batcher")
        with self.lock:  # or the interpreter's end could come in between
            watch(threaded=self, forking=self)
            if not self.closing:
                self.thread.start()

    def end_threads(self) -> None:
        """See `shutdown`.

        Who still waits is a daemon thread, as others have been joined.  It is left asleep: an error would be
        printed by it, and nobody could act on it.
        """
        if self.lost:
            return
        with self.lock:
            self.forget()
            self.closing = self.exiting = True
            self.rouse()
            if self.thread.ident is None:
                return
        self.thread.join()

    def forked(self) -> None:
        """In a forked child the thread is not there, and the locks may be held for ever."""
        self.lost = self.closing = True
        self.lock = LostLock(LOST)  # type: ignore[assignment]  # which is all that it is used for

    # --- what callers do --------------------------------------------------------------------------

    def fitting(self, arrays: Arrays) -> tuple[Arrays, Any]:
        """A copy of a request's arrays, and what tells the requests that it can go with.

        It is a copy, since a caller that gives up may write its next chunk into the same memory.
        """
        shapes: tuple[Any, ...] = tuple([(array.shape, array.dtype) for array in arrays.values()])
        if shapes not in self.fits or len(arrays) != len(self.pool.inputs):
            arrays = checked(self.pool.model.inputs, {**arrays, **self.pool.fresh})
            arrays = {name: arrays[name] for name in self.pool.inputs}
            if len(self.fits) > _MAX_FITS:
                self.fits.clear()
        shapes = self.fits.setdefault(shapes, shapes)
        copies = {name: array.copy() for name, array in arrays.items()}
        shared = self.layout.shared
        return copies, (shapes, *[copies[name].tobytes() for name in shared]) if shared else shapes

    def submit(self, request: Request) -> None:
        """Queue a request, or let it wait for room."""
        with self.lock:
            if self.exiting and threading.current_thread() is not threading.main_thread():
                request.started = True
                return  # a daemon thread, which sleeps until the interpreter has ended
            if self.closing:
                raise InputError("the batcher is closed")
            if request.stream.closed:
                raise InputError("the stream is closed")
            if self.waiting >= self.queue:
                self.overflow.append(request)
            else:
                self.admit(request)
                if self.wake_at and (len(self.ready) >= self.wake_at or self.waiting >= self.queue):
                    self.rouse()

    def submit_ahead(self, request: Request, timeout: float | None) -> None:
        """The same for a caller that goes on, and so is held back here while there is no room."""
        with self.lock:
            if not self.room.wait_for(lambda: self.closing or self.waiting < self.queue, timeout):
                raise TimeoutError(f"no room in the queue of {self.queue} within {timeout} s; nothing was asked for")
            self.submit(request)

    def admit(self, request: Request) -> None:
        """Queue it; the lock is held and there is room."""
        stream = request.stream
        request.admitted = True
        stream.pending.append(request)
        self.waiting += 1
        if not stream.listed:
            stream.listed = True
            self.ready.append(stream)

    def refill(self) -> None:
        """Queue those that wait for room; the lock is held."""
        while self.overflow and self.waiting < self.queue:
            self.admit(self.overflow.popleft())
        if self.waiting < self.queue:
            self.room.notify_all()

    def rouse(self) -> None:
        """Have the thread look again; the lock is held."""
        self.wake_at = 0
        self.wake.notify()

    def drop(self, request: Request) -> bool:
        """Take back a request that has not started; whether that was in time."""
        with self.lock:
            if request.started:
                return False
            request.started = True  # nothing else looks at it any more
            if not request.admitted:
                self.overflow.remove(request)
                return True
            request.admitted = False
            stream = request.stream
            stream.pending.remove(request)
            self.waiting -= 1
            if not stream.pending:
                stream.listed = False
                self.ready.remove(stream)
            self.refill()
            return True

    def abandon(self, request: Request) -> bool:
        """The same for a thread that waits no longer; whether it is awake all the same, and has to wake the next."""
        self.drop(request)
        with self.lock:
            request.abandoned = True
            return request.woken

    def open_slot(self) -> Slot:
        """A slot of the pool; where all are open, the thread may be about to close some."""
        while True:
            if self.exiting:
                require_running("a stream")
            with self.lock:
                if self.closing:
                    raise InputError("the batcher is closed")
                some_leave = bool(self.leaving)
            try:
                slot = self.pool.open()  # without the lock: it may have to wait for a step
            except InputError:
                with self.lock:
                    if not (some_leave or self.leaving):
                        raise
                    while self.leaving and len(self.pool) >= self.pool.slots and not self.closing:
                        self.rouse()
                        self.gone.wait()
            else:
                if self.keep(slot):
                    return slot
                self.pool.close(slot)

    def keep(self, slot: Slot) -> bool:
        """Count it among the open ones; False where the batcher was closed meanwhile."""
        with self.lock:
            if not self.closing:
                self.slots.add(slot)
            return not self.closing

    def close_stream(self, stream: BatchedStream) -> None:
        """Fail what it waits for; the thread closes the slot, once no batch with it is running."""
        if self.lost:
            stream.closed = True
            return
        with self.lock:
            if stream.closed:
                return
            stream.closed = True
            failed = list(stream.pending)
            stream.pending.clear()
            self.waiting -= len(failed)
            if stream.listed:
                stream.listed = False
                self.ready.remove(stream)
            failed += [request for request in self.overflow if request.stream is stream]
            if failed:
                self.overflow = deque(request for request in self.overflow if request.stream is not stream)
            self.slots.discard(stream.slot)
            self.leaving.append(stream.slot)
            self.refill()
            self.rouse()
        self.fail(failed, InputError, "the stream was closed before this step ran")

    def stop(self, *, drain: bool) -> None:
        """Tell the thread to end."""
        if self.lost:
            return
        failed: list[Request] = []
        with self.lock:
            if not drain:
                failed = [request for stream in self.ready for request in stream.pending] + list(self.overflow)
                self.forget()
            self.closing = True
            self.rouse()
            self.gone.notify_all()
            self.room.notify_all()
        self.fail(failed, RunError, "the batcher was closed before this step ran; the stream is as it was")

    def forget(self) -> None:
        """Empty the queue; the lock is held."""
        for stream in self.ready:
            stream.listed = False
            for request in stream.pending:
                request.started = True
            stream.pending.clear()
        for request in self.overflow:
            request.started = True
        self.ready.clear()
        self.overflow.clear()
        self.waiting = 0

    # --- what the thread does ----------------------------------------------------------------------

    def work(self) -> None:
        """Batch after batch, until it is told to end."""
        while self.turn():
            pass
        with self.lock:
            self.leaving.extend(self.slots)
            self.slots.clear()
        self.close_slots()

    def turn(self) -> bool:
        """Wait for a batch and run it; a function of its own, so that no name holds a stream while it waits."""
        self.close_slots()
        self.wait()
        requests = self.taken()
        for group in alike(requests):
            self.run(group)
        return bool(requests) or not self.closing

    def close_slots(self) -> None:
        """Close the slots of closed streams."""
        while self.leaving:
            with contextlib.suppress(InputError):  # its owner closed it in the pool itself
                self.pool.close(self.leaving[0])
            with self.lock:
                self.leaving.popleft()
                self.gone.notify_all()

    def wait(self) -> None:
        """Until enough requests wait, or some and the window is over, or there is something else to do.

        Right after a batch it waits for as many as before, without being woken by the first.
        """
        with self.lock:
            end = monotonic() + self.window
            while not self.closing and not self.leaving:
                enough = max(1, min(self.max_batch, len(self.slots)))
                if len(self.ready) >= enough or self.waiting >= self.queue:
                    break
                left = end - monotonic()
                if left > 0:
                    self.wake_at = enough
                    self.wake.wait(left)
                elif self.ready:
                    break
                else:
                    self.wake_at = 1
                    self.wake.wait()
                    end = monotonic() + self.window
            self.wake_at = 0

    def taken(self) -> list[Request]:
        """The first request of each of the first streams."""
        with self.lock:
            if self.leaving and not self.closing:
                return []  # close them first: others may wait for their slots
            batch = []
            for _ in range(min(len(self.ready), self.max_batch)):
                stream = self.ready.popleft()
                request = stream.pending.popleft()
                request.started = True
                batch.append(request)
                if stream.pending:
                    self.ready.append(stream)
                else:
                    stream.listed = False
            self.waiting -= len(batch)
            self.refill()
        return batch

    def run(self, group: list[Request]) -> None:
        """One batch; where it fails each alone, so that the others' callers do not see it."""
        group.sort(key=lambda request: request.stream.slot.index)  # the pool is fastest on slots in the same order
        try:
            results = self.pool.step([request.stream.slot for request in group], self.joined(group))
        except Exception as error:  # noqa: BLE001 - whatever it is, a thread that died would leave its callers asleep
            if len(group) > 1:
                for request in group:
                    self.run([request])
                return
            group[0].error = error
            results = {}
        self.deliver(group, self.whole(group, results))

    def joined(self, group: list[Request]) -> Arrays:
        """The inputs of a batch."""
        if len(group) == 1:
            return group[0].arrays
        return {
            name: group[0].arrays[name]
            if axis is None
            else np.concatenate([request.arrays[name] for request in group], axis)
            for name, axis in self.layout.inputs.items()
        }

    def whole(self, group: list[Request], results: Mapping[str, Any]) -> Mapping[str, Any]:
        """The results, if they have a row for each request; or none, and an error for each."""
        for name, axis in self.layout.outputs.items():
            if name in results and results[name].shape[axis : axis + 1] != (len(group),):
                for request in group:
                    request.error = RunError(
                        f"{self.pool.model.path}: its output {name} has shape {results[name].shape} "
                        f"for {len(group)} streams"
                    )
                return {}
        return results

    def fail(self, requests: list[Request], kind: type[Exception], message: str) -> None:
        """An error for each of `requests`."""
        for request in requests:
            request.started = True
            request.error = kind(message)
        self.deliver(requests, {})

    def deliver(self, requests: list[Request], results: Mapping[str, Any]) -> None:
        """Wake the callers: threads in turn, the tasks of an event loop by one call into it."""
        batch = Batch(results, self.layout.outputs, self.lock)
        loops: dict[AbstractEventLoop, list[Request]] = {}
        for index, request in enumerate(requests):
            request.index = index
            request.batch = batch  # from now on it is done for who looks
            if request.ahead and request.wake is not None:
                request.wake.release()
            elif request.wake is not None:
                batch.sleeping.append(request)
            elif request.loop is not None:
                loops.setdefault(request.loop, []).append(request)
        batch.wake_next()
        for loop, own in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its tasks are gone
                loop.call_soon_threadsafe(settle, own)
