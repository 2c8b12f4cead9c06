"""Runs sequences of any length, from any iterable, on every core, and yields results in the caller's order."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import ceil, inf
from typing import Any

import numpy as np

from ...errors import InputError, LSTMOnnxError, RunError, reason
from ..arguments import integer, positive_integer
from ..call import call
from ..cancellation import options_of
from ..conversion import ToCallerType, as_passed
from ..loaded_model import LoadedModel
from ..non_finite_inputs import warn_of_non_finite
from ..pool.pinned_threads import cores
from ..streamable import rows_mix
from ..tuning import (
    CALIBRATION_SECONDS,
    CALIBRATION_SEQUENCES,
    CALIBRATION_STEP_ROWS,
    CALIBRATION_STEPS,
    DEFAULT_LOOK_AHEAD,
    DEFAULT_ROWS_CPU,
    DEFAULT_ROWS_CUDA,
    MAX_LOOK_AHEAD_BYTES,
    MAX_WORKERS,
    RUN_SECONDS,
    THREADS_SECONDS,
)
from .batch_planner import CPU_COST, CUDA_COST, Cost, clock, in_order, measured_cost, plan
from .padding import own_results, padded_feeds
from .padding_trial import padding_changes_nothing
from .sample import Sample, SequenceLayout
from .worker_pool import WorkerPool

Batch = tuple[tuple[int, Sample], ...]
"""Samples and their numbers."""
Feeds = dict[str, np.ndarray]


def map_sequences(
    model: LoadedModel,
    sequences: Iterable[Any],
    *,
    workers: int | None = None,
    look_ahead: int | None = None,
    batch: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Iterator[Any]:
    """See `Model.map`."""
    if workers is not None:
        workers = integer("workers", workers, 1, MAX_WORKERS, "or None")
    look_ahead = None if look_ahead is None else positive_integer("look_ahead", look_ahead)
    batch = None if batch is None else positive_integer("batch", batch)
    if rows_mix(model):
        batch = 1  # otherwise each sequence's results would depend on the others in its batch
    if progress is not None and not callable(progress):
        raise InputError.of_argument("progress", progress, "a function of a number, or None")
    if isinstance(sequences, Mapping) or not isinstance(sequences, Iterable):
        raise InputError(
            f"sequences must be an iterable of sequences, not {type(sequences).__name__}", name="sequences"
        )
    try:
        iterator = iter(sequences)
    except TypeError as error:  # such as an array without axes
        raise InputError(f"sequences must be an iterable of sequences: {reason(error)}", name="sequences") from error
    count = workers or (1 if model.provider == "cuda" else cores())
    return _Mapping(model, iterator, count, look_ahead, batch, progress).results()


class _Mapping:
    """One call of `map_sequences`."""

    def __init__(
        self,
        model: LoadedModel,
        sequences: Iterator[Any],
        workers: int,
        look_ahead: int | None,
        batch: int | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.model = model
        self.padded = SequenceLayout.of(model)
        # A module's sequences are padded only after a trial; a bare LSTM is known to ignore what is past the end.
        self.padding_tried = model.spec is not None or not self.padded.padded
        self.layout = self.padded if self.padding_tried else self.padded.unpadded()
        self.session = model.one_thread()
        self.sequences = sequences
        self.workers = workers
        self.pool: WorkerPool[Feeds, list[Any]] = WorkerPool(workers, self._run)
        self.running: dict[int, Batch] = {}
        self.started = 0
        self.outcomes: dict[int, tuple[Any, ...] | Exception] = {}
        self.done = 0
        self.batch = batch
        self.progress = progress
        self.most = look_ahead or DEFAULT_LOOK_AHEAD
        self.half = -(-self.most // 2)
        self.most_bytes = MAX_LOOK_AHEAD_BYTES if look_ahead is None else float("inf")
        self.window: list[tuple[int, Sample]] = []
        self.window_size = 0
        self.pending: dict[int, tuple[int, ToCallerType, bool]] = {}
        """For each sequence that was read: its bytes, and how to convert its results."""
        self.pending_size = 0
        self.read = 0
        self.ended = False
        self.failure: Exception | None = None
        """The error that ended the reading, raised after the results of everything that was read."""

    def results(self) -> Iterator[Any]:
        yielded = 0
        try:
            while True:
                # While results are ready, two are read for each that is yielded, until no more may be held: then the
                # workers run one half while the other is yielded.
                while self._read_one():
                    if self._is_done(yielded):
                        self._read_one()
                        break
                if yielded == self.read:
                    break
                # No local variable for what is yielded: it would keep the caller's last result alive.
                yield self._take(yielded)
                yielded += 1
            if self.failure is not None:
                raise self.failure
        finally:
            self.pool.close()

    def _is_done(self, index: int) -> bool:
        while index not in self.outcomes and self.pool.any_ended():
            self._finish()
        return index in self.outcomes

    def _take(self, index: int) -> Any:
        while index not in self.outcomes:
            self._finish()
        outcome = self.outcomes.pop(index)
        size, to_caller_type, is_pair = self.pending.pop(index)
        self.pending_size -= size
        if isinstance(outcome, Exception):
            raise outcome
        return _results(self.model.outputs, outcome, to_caller_type, is_pair)

    def _read_one(self) -> bool:
        """Read a sequence if there is room for it; returns whether one was read.

        Sequences go to the workers once half of the pending ones are read: the other half is read meanwhile.
        """
        if self.ended or len(self.pending) >= self.most or self.pending_size >= self.most_bytes:
            return False
        try:
            value = next(self.sequences)
        except StopIteration:
            return self._end(None)
        except Exception as error:  # noqa: BLE001 - raised in its place, after the results before it
            return self._end(error)
        try:
            sample = self.layout.sample(value)
        except InputError as error:
            return self._end(_numbered(error, self.read))
        self.window.append((self.read, sample))
        # The arrays are dropped after their run.
        self.pending[self.read] = sample.size, sample.to_caller_type, sample.is_pair
        self.window_size += sample.size
        self.pending_size += sample.size
        self.read += 1
        if len(self.window) >= self.half or self.window_size >= self.most_bytes / 2:
            self._submit()
        return True

    def _end(self, failure: Exception | None) -> bool:
        self.ended, self.failure = True, failure
        self._submit()
        return False

    def _submit(self) -> None:
        """Divide the sequences that were read into batches, and start them."""
        window, self.window, self.window_size = self.window, [], 0
        if not window:
            return
        samples = [sample for _, sample in window]
        self._try_padding(samples)
        cost, most = self._cost(samples)
        keys = self.layout.keys(samples)
        lengths = [sample.length for sample in samples]
        if not self.layout.together:
            most = 1
        small = self._rows_of_small(lengths, cost)
        runs = in_order(lengths, keys, small) if small > most > 1 else plan(lengths, keys, cost, most, self.workers)
        seconds = inf if cost in (CPU_COST, CUDA_COST) else cost.row * sum(lengths)
        alone = self.ended and not self.started and (len(runs) == 1 or seconds < THREADS_SECONDS)
        start = self.pool.run if alone else self.pool.submit
        for run in runs:
            self._start(tuple([window[at] for at in run]), start)

    def _rows_of_small(self, lengths: Sequence[int], cost: Cost) -> int:
        """The number of rows with which a run takes `RUN_SECONDS`."""
        if cost in (CPU_COST, CUDA_COST):
            return 1
        rows = ceil(RUN_SECONDS / cost.row * len(lengths) / sum(lengths))
        return min(rows, -(-len(lengths) // self.workers), self.layout.rows or rows)

    def _start(self, batch: Batch, start: Callable[[int, Feeds], None]) -> None:
        """Run a batch by `start`.  Everything but the run happens here, since threads share one interpreter lock."""
        try:
            feeds = padded_feeds(self.layout, [sample for _, sample in batch])
            warn_of_non_finite(self.model, feeds)
        except Exception as error:  # noqa: BLE001 - raised in its place
            self._failed(batch, error)
            return
        self.running[self.started] = batch
        start(self.started, feeds)
        self.started += 1

    def _finish(self) -> None:
        """Wait for a run to end, and divide its outputs."""
        number, outcome = self.pool.next_ended()
        batch = self.running.pop(number)
        try:
            if not isinstance(outcome, Exception):
                results = own_results(self.layout, outcome, [sample for _, sample in batch])
        except (MemoryError, RunError) as error:
            outcome = error
        if isinstance(outcome, Exception):
            self._failed(batch, outcome)
        else:
            self._set([index for index, _ in batch], results)

    def _failed(self, batch: Batch, error: Exception) -> None:
        if not isinstance(error, (RunError, MemoryError)):
            self._set([index for index, _ in batch], [error] * len(batch))
        elif len(batch) > 1:  # each alone, to find the one that fails
            for one in batch:
                self._start((one,), self.pool.submit)
        else:
            if isinstance(error, MemoryError):
                error = RunError("ran out of memory", path=self.model.path)
            self._set([batch[0][0]], [_numbered(error, batch[0][0])])

    def _set(self, indices: Iterable[int], outcomes: Sequence[tuple[Any, ...] | Exception]) -> None:
        self.outcomes.update(zip(indices, outcomes, strict=True))
        self.done += len(outcomes)
        if self.progress is not None:
            self.progress(self.done)

    def _try_padding(self, samples: Sequence[Sample]) -> None:
        """Test, before the first sequences of a module are padded, whether padding changes their results."""
        lengths = sorted({sample.length for sample in samples})
        if self.padding_tried or len(lengths) < 2:
            return
        chosen = (lengths[0], lengths[len(lengths) // 2])
        short, long = (next(sample for sample in samples if sample.length == length) for length in chosen)
        if len(set(self.padded.keys([short, long]))) > 1:
            return
        self.padding_tried = True
        try:
            if padding_changes_nothing(self.padded, self.layout, samples, long, self._run):
                self.layout = self.padded
        except (RunError, MemoryError):
            return  # the sequence fails again in its own run, which reports its number

    def _cost(self, samples: Sequence[Sample]) -> tuple[Cost, int]:
        """The cost of runs, and the largest number of rows of one."""
        cost, rows = self._cost_without_limit(samples)
        return cost, rows if self.padded.rows is None else min(rows, self.padded.rows)

    def _cost_without_limit(self, samples: Sequence[Sample]) -> tuple[Cost, int]:
        if self.model.provider == "cuda":
            return CUDA_COST, self.batch or DEFAULT_ROWS_CUDA
        if self.batch is not None:
            return CPU_COST, self.batch
        cost = _costs.get(self.model)
        enough = len(samples) >= CALIBRATION_SEQUENCES
        if cost is None and enough and self.layout.together and self.layout.rows is None:
            cost = self._measured(samples)
            if cost is not None:
                _costs[self.model] = cost
        return (CPU_COST, DEFAULT_ROWS_CPU) if cost is None else (cost, cost.best)

    def _measured(self, samples: Sequence[Sample]) -> Cost | None:
        fewest, most = CALIBRATION_STEPS
        sample = min(samples, key=lambda sample: abs(sample.length - most))

        def seconds(rows: int) -> float:
            batch = [sample] * rows
            started = clock()
            self._run(padded_feeds(self.layout, batch))
            return clock() - started

        try:
            if self.model.spec is not None:
                whole, sample = sample, _beginning(sample, fewest)
                seconds(1)
                step = seconds(1) / sample.length
                steps = int(CALIBRATION_SECONDS / (CALIBRATION_STEP_ROWS * step))
                sample = _beginning(whole, max(fewest, min(most, steps)))
            return measured_cost(seconds, sample.length)
        except (RunError, MemoryError):
            return None  # the sequence fails again in its own run, which reports its number

    def _run(self, feeds: Feeds) -> list[Any]:
        """The outputs in the model's order."""
        names = list(self.model.outputs)
        return call(self.model.path, self.session.run, names, feeds, options_of(self.model))


_costs: weakref.WeakKeyDictionary[LoadedModel, Cost] = weakref.WeakKeyDictionary()
"""Measured costs, for later calls."""


def _numbered(error: LSTMOnnxError, index: int) -> LSTMOnnxError:
    """The error of a sequence, with its number."""
    numbered = type(error)(f"sequence {index}: {error}", name=error.name, index=index)
    numbered.__cause__ = error
    return numbered


def _beginning(sample: Sample, steps: int) -> Sample:
    """The first steps of a bare LSTM's sequence."""
    steps = min(steps, sample.length)
    arrays = {**sample.arrays, "input": sample.arrays["input"][:steps]}
    arrays.pop("lengths", None)
    return sample._replace(arrays=arrays, sizes={**sample.sizes, "time": steps}, length=steps)


def _results(names: Collection[str], outputs: Sequence[Any], to_caller_type: ToCallerType, is_pair: bool) -> Any:
    """Results in the form and the type in which the sequence was passed."""
    results = as_passed(dict(zip(names, outputs, strict=True)), to_caller_type)
    if not is_pair:
        return results
    output, hn, cn = results.values()
    return output, (hn, cn)
