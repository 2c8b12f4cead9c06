"""Sequences of any length, from any iterable, through a model on every core, in the caller's order."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, LSTMOnnxError, RunError, reason, shown
from ..arguments import integer, positive_integer
from ..call import call
from ..conversion import ToCallerType, unchanged
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
    HERE_SECONDS,
    MAX_LOOK_AHEAD_BYTES,
    MAX_WORKERS,
)
from .batch_planner import CPU_COST, CUDA_COST, Cost, plan
from .calibration import clock, measured_cost
from .padding import Padder, results_agree
from .sample import Sample, SequenceLayout
from .worker_pool import WorkerPool

if TYPE_CHECKING:
    from ..model import Model

Batch = tuple[tuple[int, Sample], ...]
"""Samples and their numbers."""
Outcome = dict[int, "dict[str, Any] | Exception"]


def map_sequences(
    model: Model,
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
        raise InputError(
            f"progress = {shown(progress)} is not possible",
            hint="it must be a function of a number, or None",
            name="progress",
        )
    if isinstance(sequences, Mapping) or not isinstance(sequences, Iterable):
        raise InputError(
            f"sequences must be an iterable of sequences, and not a {type(sequences).__name__}", name="sequences"
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
        model: Model,
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
        self.batch = batch
        self.progress = progress
        self.most = look_ahead or DEFAULT_LOOK_AHEAD
        self.most_bytes = MAX_LOOK_AHEAD_BYTES if look_ahead is None else float("inf")
        self.window: list[tuple[int, Sample]] = []
        self.window_bytes = 0
        self.pending: dict[int, tuple[int, ToCallerType, bool]] = {}
        """Of each sequence that was read its bytes, and what its results become."""
        self.pending_bytes = 0
        self.read = 0
        self.ended = False
        self.failure: Exception | None = None
        """What ended the reading, raised after the results of everything that was read."""

    def results(self) -> Iterator[Any]:
        pool: WorkerPool[Batch, dict[str, Any]] = WorkerPool(
            self.workers, self._worker, lambda task: [i for i, _ in task]
        )
        yielded = 0
        try:
            while True:
                # One is read for each that is yielded, also while results are ready, so that the workers never
                # wait for a slow consumer.
                while self._read_one():
                    self._submit(pool)
                    if pool.ready(yielded):
                        break
                self._submit(pool)
                if yielded == self.read:
                    break
                # No local variable for what is yielded: it would keep the caller's last result alive.
                yield self._take(pool, yielded)
                yielded += 1
            if self.failure is not None:
                raise self.failure
        finally:
            pool.close()

    def _take(self, pool: WorkerPool[Batch, dict[str, Any]], index: int) -> Any:
        outcome = pool.take(index, self.progress)
        size, to_caller_type, is_pair = self.pending.pop(index)
        self.pending_bytes -= size
        if isinstance(outcome, Exception):
            raise outcome
        return _as_passed(outcome, to_caller_type, is_pair)

    def _read_one(self) -> bool:
        """Read a sequence if there is room for it; whether one was read."""
        if self.ended or len(self.pending) >= self.most or self.pending_bytes >= self.most_bytes:
            return False
        try:
            value = next(self.sequences)
        except StopIteration:
            self.ended = True
            return False
        except Exception as error:  # noqa: BLE001 - raised in its place, after the results before it
            self.ended, self.failure = True, error
            return False
        try:
            sample = self.layout.sample(value)
        except InputError as error:
            self.ended, self.failure = True, _numbered(error, self.read)
            return False
        size = self.layout.size_in_bytes(sample)
        self.window.append((self.read, sample))
        self.window_bytes += size
        # The arrays are dropped after their run.
        self.pending[self.read] = size, sample.to_caller_type, sample.is_pair
        self.pending_bytes += size
        self.read += 1
        return True

    def _submit(self, pool: WorkerPool[Batch, dict[str, Any]]) -> None:
        """Pass the window to the workers once it is half of what may be pending: the other half is read meanwhile.

        Small sequences run at once; see `HERE_SECONDS`.
        """
        if not self.window:
            return
        full = len(self.window) >= -(-self.most // 2) or self.window_bytes >= self.most_bytes / 2
        if not (full or self.ended):
            return
        window, self.window, self.window_bytes = self.window, [], 0
        samples = [sample for _, sample in window]
        self._try_padding(samples)
        cost, most = self._cost(samples)
        keys = [self.layout.key(sample) for sample in samples]
        most = most if self.layout.together else 1
        lengths = [sample.length for sample in samples]
        runs = plan(lengths, keys, cost, most, self.workers)
        small = cost not in (CPU_COST, CUDA_COST) and cost.of(lengths, runs) < len(samples) * HERE_SECONDS
        del samples
        (pool.run_here if small else pool.submit)(tuple(window[at] for at in run) for run in runs)

    def _try_padding(self, samples: Sequence[Sample]) -> None:
        """Before the first sequences of a module are padded: whether padding changes their results.

        That it has an input for lengths is no proof: what follows its LSTM may use the padding, as a mean does.
        """
        lengths = sorted({sample.length for sample in samples})
        if self.padding_tried or len(lengths) < 2:
            return
        chosen = (lengths[0], lengths[len(lengths) // 2])
        short, long = (next(sample for sample in samples if sample.length == length) for length in chosen)
        if self.padded.key(short) != self.padded.key(long):
            return
        self.padding_tried = True
        padder, plain = Padder(self.padded), Padder(self.layout)
        try:
            padded = padder.results(self._run(padder.feeds([long, short])), [long, short])[1]
            alone = plain.results(self._run(plain.feeds([short])), [short])[0]
        except (RunError, MemoryError):
            return  # the sequence fails again in its own run, which reports its number
        if results_agree(alone, padded):
            self.layout = self.padded

    def _cost(self, samples: Sequence[Sample]) -> tuple[Cost, int]:
        """What runs cost, and the largest number of rows of one."""
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
        padder = Padder(self.layout)
        sample = min(samples, key=lambda sample: abs(sample.length - most))

        def seconds(rows: int) -> float:
            batch = [sample] * rows
            started = clock()
            self._run(padder.feeds(batch))
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

    def _worker(self) -> Callable[[Batch], Outcome]:
        padder = Padder(self.layout)

        def work(batch: Batch) -> Outcome:
            padder.layout = self.layout  # it may have changed to the padded one, which is right for equal lengths too
            samples = [sample for _, sample in batch]
            try:
                results = padder.results(self._run(padder.feeds(samples)), samples)
            except (RunError, MemoryError) as error:
                if len(batch) > 1:  # each alone, to find the one that fails
                    return {index: outcome for one in batch for index, outcome in work((one,)).items()}
                cause = error
                if isinstance(cause, MemoryError):
                    cause = RunError("ran out of memory", path=self.model.path)
                return {batch[0][0]: _numbered(cause, batch[0][0])}
            return {index: result for (index, _), result in zip(batch, results, strict=True)}

        return work

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        warn_of_non_finite(self.model, feeds)
        names = list(self.model.outputs)
        return dict(
            zip(names, call(self.model.path, self.session.run, names, feeds, self.model.run_options), strict=True)
        )


_costs: weakref.WeakKeyDictionary[Model, Cost] = weakref.WeakKeyDictionary()
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


def _as_passed(outputs: dict[str, Any], to_caller_type: ToCallerType, is_pair: bool) -> Any:
    """Results in the form and of the type in which the sequence was passed."""
    values = outputs
    if to_caller_type is not unchanged:
        values = {
            name: to_caller_type(value) if isinstance(value, np.ndarray) else value for name, value in outputs.items()
        }
    return (values["output"], (values["hn"], values["cn"])) if is_pair else values
