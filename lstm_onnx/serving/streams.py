"""Holds the open streams of a model: finds a request's stream, steps it, and closes idle ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic

import numpy as np

from ..errors import InputError
from ..runtime.batcher.batcher import BatchedStream
from .errors import Kind, RequestError
from .requests import Key, SequencePart
from .served_model import ServedModel
from .single_streams import SingleStream

_MOST_REMEMBERED = 10_000
"""How many sequences closed as idle are remembered, for the message to a later request."""


class OpenStream:
    """One stream of a model, for a websocket or a stateful sequence.

    Attributes:
        served: the model as loaded when the stream started; a later load does not change it.
        used: when it was last used, by the monotonic clock.
        running: how many of its requests are not answered yet.
        closed: whether it was closed.
    """

    def __init__(self, served: ServedModel, stream: BatchedStream | SingleStream) -> None:
        self.served = served
        self.stream = stream
        self.used = monotonic()
        self.running = 0
        self.closed = False

    async def step(
        self, inputs: Mapping[str, np.ndarray], timeout: float, *, end: bool = False
    ) -> dict[str, np.ndarray]:
        """Run the next time steps; with `end`, the last ones, also returning the outputs that a sequence's end yields.

        Raises:
            InputError: the inputs do not fit, or the stream was closed; nothing was run.
            RunError: ONNX Runtime failed, and the states are unchanged.
            RequestError: the queue is full; nothing was run.
            TimeoutError: it took longer than `timeout` seconds; the message says whether the stream advanced.
        """
        batcher = self.served.batcher
        limit = self.served.settings.queue
        if batcher.waiting >= limit:
            raise RequestError(
                f"{limit} requests wait already, and the stream is unchanged; try again later", Kind.FULL
            )
        self.running += 1
        try:
            if end and isinstance(self.stream, SingleStream):
                return await self.stream.afinish(inputs, timeout=timeout)
            outputs: dict[str, np.ndarray] = await self.stream.astep(inputs, timeout=timeout)
            return outputs
        finally:
            self.running -= 1
            self.used = monotonic()

    async def states(self) -> dict[str, np.ndarray]:
        """A copy of the states, by the names of their inputs; no step may be running."""
        # In a thread, since a step of other streams may hold the pool's lock.
        return await asyncio.to_thread(lambda: self.stream.state)

    async def restore(self, states: Mapping[str, np.ndarray]) -> None:
        """Set the states; no step may be running (InputError where they do not fit the model)."""
        await asyncio.to_thread(setattr, self.stream, "state", states)

    def close(self) -> None:
        """Close the stream; closing it again does nothing."""
        if not self.closed:
            self.closed = True
            self.stream.close()
            self.served.stream_closed()


def open_stream(served: ServedModel) -> OpenStream:
    """Open a stream.

    Raises:
        RequestError: the model cannot be streamed, or has no room for another stream.
    """
    batcher = served.require_batcher()
    limit = served.settings.max_streams
    if served.streams >= limit:
        raise RequestError(f"all {limit} streams of {served.name} are open; try again later", Kind.FULL)
    stream = OpenStream(served, batcher.open())
    served.stream_opened()
    return stream


class Sequences:
    """The stateful sequences of one entry of the repository; they continue when its file is loaded again."""

    def __init__(self, name: str, idle_seconds: float) -> None:
        self.name = name
        self.idle_seconds = idle_seconds
        self._open: dict[Key, OpenStream] = {}
        self._expired: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        """The number of open sequences."""
        return len(self._open)

    def model_of(self, part: SequencePart, served: ServedModel | None) -> ServedModel | None:
        """The model for a request: that of its sequence, or `served` where the sequence starts or is not open."""
        stream = None if part.start else self._open.get(part.key)
        return served if stream is None else stream.served

    async def step(
        self, served: ServedModel | None, part: SequencePart, inputs: Mapping[str, np.ndarray], timeout: float
    ) -> dict[str, np.ndarray]:
        """Run the next request of a sequence.

        Args:
            served: the model for a sequence that starts; None if none may start.
            part: the sequence, and whether it starts or ends.
            inputs: arrays by name.
            timeout: the most seconds to wait.

        Raises:
            RequestError: the sequence is not open, or was closed meanwhile; or as `OpenStream.step`.
            InputError, RunError, TimeoutError: as `OpenStream.step`.
        """
        stream = self._started(served, part) if part.start else self._open.get(part.key)
        if stream is None:
            raise RequestError(self._absent(part.key))
        if part.end:
            del self._open[part.key]  # the id may be used again: this request is queued before any later one
        try:
            outputs = await stream.step(inputs, timeout, end=part.end)
        except (InputError, RequestError) as error:  # nothing was run
            if stream.closed:
                raise RequestError(
                    f"sequence {part.key[1]!r} was restarted, ended or closed before this request ran"
                ) from error
            if part.start:
                self._drop(part.key, stream)
            elif part.end and self._open.setdefault(part.key, stream) is not stream:
                stream.close()  # since a new sequence has taken the id
            raise
        except BaseException as error:
            if part.end:
                stream.close()
                if isinstance(error, TimeoutError):  # its message may say that the stream is unchanged
                    raise TimeoutError(f"{error}; the sequence is closed, as its sequence_end asked") from error
            raise
        if part.end:
            stream.close()
        return outputs

    def _drop(self, key: Key, stream: OpenStream) -> None:
        if self._open.get(key) is stream:
            del self._open[key]
        stream.close()

    def _started(self, served: ServedModel | None, part: SequencePart) -> OpenStream:
        if served is None:
            raise RequestError(f"model {self.name} accepts no new sequence", Kind.UNAVAILABLE)
        before = self._open.pop(part.key, None)
        if before is not None:
            before.close()
        self._expired.pop(part.key, None)
        stream = open_stream(served)
        self._open[part.key] = stream
        return stream

    def _absent(self, key: Key) -> str:
        if key in self._expired:
            return (
                f"sequence {key[1]!r} of model {self.name} was closed after {self.idle_seconds:g} s without a request; "
                "its states are gone, so start it again with sequence_start"
            )
        return (
            f"sequence {key[1]!r} of model {self.name} is not open; its first request must have sequence_start, and "
            "none may follow sequence_end"
        )

    def close_idle(self) -> int:
        """Close the sequences without a request for the idle time; return how many."""
        before = monotonic() - self.idle_seconds
        idle = [key for key, stream in self._open.items() if not stream.running and stream.used < before]
        for key in idle:
            self._open.pop(key).close()
            self._expired[key] = None
            if len(self._expired) > _MOST_REMEMBERED:
                self._expired.popitem(last=False)
        return len(idle)

    def close(self) -> None:
        """Close all."""
        for stream in self._open.values():
            stream.close()
        self._open.clear()
