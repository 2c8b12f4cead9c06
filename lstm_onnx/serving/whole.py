"""Runs requests with whole sequences; those of equal sizes that wait at the same time run as one batch."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from ..errors import RunError
from ..runtime import Model
from ..runtime.batch_axes import batch_axes, batch_name
from ..runtime.cancellation import Cancellation
from ..runtime.streamable import is_proven
from .errors import Kind, RequestError

Arrays = dict[str, np.ndarray]


@dataclass(eq=False)
class _Waiting:
    """A request that waits or runs, and the future of its result.

    Attributes:
        arrays: the validated inputs.
        key: requests with the same key can run together; None if this one must run alone.
        rows: its size along the batch axis.
        done: the future of the result.
        batch: the batch in which it runs; None before it runs.
    """

    arrays: Arrays
    key: Any
    rows: int
    done: asyncio.Future[Arrays]
    batch: _Batch | None = None


@dataclass(eq=False)
class _Batch:
    """Requests that run together, and the cancellation of their run."""

    items: list[_Waiting]
    cancellation: Cancellation = field(default_factory=Cancellation)

    def cancel_if_unneeded(self) -> None:
        """Cancel the run if nobody waits for any of its results."""
        if all(item.done.done() for item in self.items):
            self.cancellation.cancel()


class WholeSequences:
    """Runs a model on whole sequences, for tasks of one event loop.

    A batch never waits for more requests: it takes those that arrived while the previous one ran.  Requests are
    combined only if the file says that the sequences of a batch do not affect each other.  A run is cancelled once
    nobody waits for its results.

    Attributes:
        waiting: how many requests wait.
    """

    def __init__(
        self,
        model: Model,
        executor: Executor,
        *,
        max_rows: int,
        queue: int,
        workers: int,
        on_batch: Callable[[int, float], object],
    ) -> None:
        self.model = model
        self.axes = _batch_axes(model)
        limit = model.metadata.axis_limits.get(batch_name(model) or "", (1, None))[1]
        self.max_rows = max_rows if limit is None else min(max_rows, limit)
        self._executor, self._queue, self._free, self._on_batch = executor, queue, workers, on_batch
        self._waiting: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        """See the class."""
        return len(self._waiting)

    async def run(self, inputs: Mapping[str, np.ndarray], timeout: float) -> Arrays:
        """The outputs of the model for these inputs.

        Raises:
            InputError: the inputs do not fit the model; nothing was run.
            RunError: ONNX Runtime failed.
            RequestError: the queue is full.
            TimeoutError: it took longer than `timeout` seconds.
        """
        arrays = self.model.validated(dict(inputs))
        self.model.require_counts(arrays)
        self.model.require_steps(arrays, inputs)
        if len(self._waiting) >= self._queue:
            raise RequestError(f"{self._queue} requests wait already; try again later", Kind.FULL)
        item = _Waiting(arrays, *self._key(arrays), asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        self._start()
        try:
            async with asyncio.timeout(timeout):
                return await item.done
        except TimeoutError:
            raise TimeoutError(f"no result within {timeout:g} s") from None
        finally:
            if not item.done.done():
                item.done.cancel()
            if item.done.cancelled() and item in self._waiting:
                self._waiting.remove(item)
            if item.batch is not None:
                item.batch.cancel_if_unneeded()

    def _key(self, arrays: Arrays) -> tuple[Any, int]:
        if self.axes is None:
            return None, 1
        rows = {arrays[name].shape[axis] for name, axis in self.axes[0].items()}
        if len(rows) != 1:
            return None, 1
        others = [
            (*array.shape[: (axis := self.axes[0][name])], *array.shape[axis + 1 :]) for name, array in arrays.items()
        ]
        if self.model.spec is None:  # a module's result may depend on the longest sequence of a batch
            others += [tuple(np.unique(arrays[name]).tolist()) for name in self.model.counts]
        return tuple(others), rows.pop()

    def _start(self) -> None:
        """Run waiting requests for as long as workers are free."""
        while self._free and self._waiting:
            batch = self._next_batch()
            self._free -= 1
            running = asyncio.get_running_loop().run_in_executor(self._executor, self._run, batch)
            running.add_done_callback(functools.partial(self._finish, batch))

    def _next_batch(self) -> list[_Waiting]:
        first = self._waiting.popleft()
        batch, rows = [first], first.rows
        if first.key is not None:
            for item in list(self._waiting):
                if item.key == first.key and rows + item.rows <= self.max_rows:
                    self._waiting.remove(item)
                    batch.append(item)
                    rows += item.rows
        return batch

    def _run(self, items: list[_Waiting]) -> list[Arrays | Exception]:
        """Run several requests as one batch, in a worker's thread."""
        began = perf_counter()
        batch = _Batch(items)
        for item in items:
            item.batch = batch
        batch.cancel_if_unneeded()  # clients that gave up before this point had no batch to cancel
        try:
            with batch.cancellation:
                results = self._results(items)
        except Exception as error:  # noqa: BLE001 - it belongs to the client
            if len(items) == 1:
                return [error]
            return [result for item in items for result in self._run([item])]
        self._on_batch(sum(item.rows for item in items), perf_counter() - began)
        return list(results)

    def _results(self, batch: list[_Waiting]) -> list[Arrays]:
        if len(batch) == 1 or self.axes is None:
            return [self.model.run(batch[0].arrays)]
        inputs, outputs = self.axes
        feeds = {name: np.concatenate([item.arrays[name] for item in batch], axis) for name, axis in inputs.items()}
        together = self.model.run(feeds)
        ends = np.cumsum([item.rows for item in batch])
        for name, axis in outputs.items():
            if together[name].shape[axis : axis + 1] != (ends[-1],):
                raise RunError(f"its output {name} has shape {together[name].shape} for {ends[-1]} rows", name=name)
        return [
            {
                name: together[name][(*(slice(None),) * axis, slice(int(end) - item.rows, int(end)))]
                for name, axis in outputs.items()
            }
            for item, end in zip(batch, ends, strict=True)
        ]

    def _finish(self, batch: list[_Waiting], done: asyncio.Future[list[Arrays | Exception]]) -> None:
        self._free += 1
        for item, result in zip(batch, done.result(), strict=True):
            if item.done.done():
                continue
            if isinstance(result, Exception):
                item.done.set_exception(result)
            else:
                item.done.set_result(result)
        self._start()


def _batch_axes(model: Model) -> tuple[dict[str, int], dict[str, int]] | None:
    """The batch axis of each input and of each output; None if requests cannot be combined."""
    name = batch_name(model)
    if name is None or (model.spec is None and model.metadata.batch_mixes != "") or not is_proven(model):
        return None
    inputs, outputs = batch_axes(model.inputs, [name]), batch_axes(model.outputs, [name])
    if len(inputs) < len(model.inputs) or len(outputs) < len(model.outputs):
        return None
    return inputs, outputs
