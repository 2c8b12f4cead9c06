"""Steps streams one by one, for a model that a pool refuses, since its batch size is fixed or it looks ahead.

The classes have the interface of the runtime's `Batcher` and its streams, as far as a server uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from time import perf_counter
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from ..runtime import Model
from ..runtime.cancellation import Cancellation
from ..runtime.stream import Stream

Arrays = dict[str, np.ndarray]


class SingleStream:
    """One stream, for tasks of one event loop.  Made by `SingleStreams.open`."""

    def __init__(self, owner: SingleStreams, stream: Stream) -> None:
        self._owner = owner
        self._stream = stream
        self._turn = asyncio.Lock()  # asyncio's locks are fair, so steps run in the order of the requests
        self._closed = False
        self._abandoned = False  # whether the caller of the running step no longer waits
        self._cancellation: Cancellation | None = None  # of the running step

    async def astep(self, x: Mapping[str, np.ndarray], *, timeout: float) -> Arrays:
        """As `BatchedStream.astep`, for arrays by name."""
        return await self._in_turn(lambda: self._stream.run(x), timeout)

    async def afinish(self, x: Mapping[str, np.ndarray], *, timeout: float) -> Arrays:
        """The same for the last steps of a sequence, with the outputs that come once it has ended.

        Raises:
            InputError, TimeoutError: as `astep`.
            RunError: as `astep`; also where the sequence cannot end after this many steps, which were run.
        """
        return await self._in_turn(lambda: self._finished(x), timeout)

    def _finished(self, x: Mapping[str, np.ndarray]) -> Arrays:
        outputs = self._stream.run(x)
        streaming = self._owner.model.metadata.streaming_or_default
        if streaming.last is None:
            return outputs
        try:
            rest = self._stream.flush()
        except InputError as error:
            raise RunError(f"the steps were run, but the sequence cannot end after them: {error.reason}") from error
        found = {}
        for name, array in outputs.items():
            axis = streaming.outputs.get(name)
            found[name] = rest[name] if axis is None else np.concatenate([array, rest[name]], axis)
        return found

    async def _in_turn(self, function: Callable[[], Arrays], timeout: float) -> Arrays:
        # In a task, which outlives a caller that gives up: the next step must wait until this one has ended.
        started = asyncio.Event()
        task = asyncio.ensure_future(self._run(function, started))
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(task)
        except (TimeoutError, asyncio.CancelledError) as error:
            if started.is_set():
                self._abandoned = True
                self._cancel_if_unneeded()
            else:
                task.cancel()
            task.add_done_callback(_ignore)
            if isinstance(error, asyncio.CancelledError):
                raise
            what = "the step was already running, and the stream advances"
            if not started.is_set():
                what = "the request was withdrawn, and the stream is unchanged"
            raise TimeoutError(f"no output within {timeout:g} s; {what}") from None

    async def _run(self, function: Callable[[], Arrays], started: asyncio.Event) -> Arrays:
        owner = self._owner
        owner.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            owner.waiting -= 1
        try:
            if self._closed:
                raise InputError("the stream was closed before this step ran")
            started.set()
            began = perf_counter()
            self._abandoned, self._cancellation = False, Cancellation()
            outputs = await asyncio.get_running_loop().run_in_executor(
                owner.executor, _cancellable, function, self._cancellation
            )
            owner.on_batch(1, perf_counter() - began)
            return outputs
        finally:
            self._cancellation = None
            self._turn.release()

    def _cancel_if_unneeded(self) -> None:
        """Cancel the running step if nobody needs its outputs or its states."""
        if self._closed and self._abandoned and self._cancellation is not None:
            self._cancellation.cancel()

    @property
    def state(self) -> Arrays:
        """A copy of the states; set it as `Stream.state`."""
        return self._stream.state

    @state.setter
    def state(self, values: Mapping[str, np.ndarray]) -> None:
        self._stream.state = values

    def close(self) -> None:
        """Close the stream; a running step finishes, unless its caller has given up."""
        if not self._closed:
            self._closed = True
            self._cancel_if_unneeded()


class SingleStreams:
    """The streams of one model.

    Attributes:
        model: the model.
        executor: where steps run.
        waiting: how many requests wait for their turn.
    """

    def __init__(self, model: Model, executor: Executor, on_batch: Callable[[int, float], object]) -> None:
        """Raises InputError where the model cannot be streamed."""
        model.stream()
        self.model = model
        self.executor = executor
        self.on_batch = on_batch
        self.waiting = 0

    def open(self) -> SingleStream:
        """Open a stream."""
        return SingleStream(self, self.model.stream())

    def close(self, *, drain: bool = True) -> None:
        """Does nothing; for the interface of `Batcher`."""
        del drain


def _cancellable(function: Callable[[], Arrays], cancellation: Cancellation) -> Arrays:
    with cancellation:
        return function()


def _ignore(task: asyncio.Future[Any]) -> None:
    """Retrieve a task's exception, so that asyncio does not log one that nobody awaits."""
    if not task.cancelled():
        task.exception()
