"""Sequences of any length, from any iterable, through a model on every core, in the caller's order."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import get_clock_info, perf_counter, thread_time
from typing import Any

import numpy as np

from ...errors import InputError, RunError, reason, shown
from ..arguments import positive_integer
from ..model import Model
from ..pool.pinned_threads import cores
from ..providers import first_line, ort_errors
from .batch_planner import CPU_COST, CUDA_COST, ROWS, Cost, plan, rising
from .padding import Item, Layout, Padder, agrees
from .worker_pool import Workers

OPTIONS = ("workers", "look_ahead", "batch", "progress")
MOST_WORKERS = 1024
LOOK_AHEAD = 1024
"""Sequences held at once where the caller names no number."""
HELD_BYTES = 2**28
"""And bytes of them and of their results."""
_CPU_ROWS, _CUDA_ROWS = 6, 64
"""Rows of a run where nothing was measured."""
_WORTH = 64
"""Sequences from which on a calibration pays."""
_BUDGET = 0.25
"""Seconds that a calibration may take, and the last of its runs more."""
_REPEATS = 5
_WORSE = 1.1
"""A row that costs so much more than at the size before, and more rows are not tried."""
_SHORT, _LONG = 4, 64
"""Time steps of a calibration's runs."""
_CALL = 5e-5
"""Seconds of a run that neither rows nor steps account for: the call, and Python around it."""

_STEPS = 32
"""The steps of one row that the calibration's runs at one time step would take, about."""
_clock = thread_time if get_clock_info("thread_time").resolution < 1e-6 else perf_counter
"""The thread's own time, where that is fine enough: other programs do not count."""

Batch = tuple[tuple[int, Item], ...]
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
    """Run a model on each of `sequences`, and yield the results in their order.

    Sequences are read ahead, sorted by length and run in small batches by one thread a core, and each
    result is yielded as soon as it is the next and is ready.  A model with lengths runs sequences of
    different lengths together; without (export with ``lengths=True``) only equal ones, which is slower
    where lengths vary.  A module with lengths is tried first: where padding would change its results
    it runs equal lengths together as well.  The results are those of the model called on each sequence
    alone, but for float rounding, which depends on what else is in a batch.

    Args:
        model: on CUDA it runs in one thread and in larger batches.
        sequences: each a sequence on its own, without the batch axis: for a bare LSTM an array
            ``(time, input_size)`` or a pair of it and its states, ``(array, (h0, c0))`` of shapes
            ``(L*D, proj_size or hidden_size)`` and ``(L*D, hidden_size)``; for any model a dict of
            input names to arrays.  Lengths that are left out are the whole sequence.  Of a model
            whose inputs have no batch axis, what `Model.run` takes.  It is read in the caller's thread,
            and what it gives must stay as it is until its result is there.
        workers: threads; None for one a core that this process may use.
        look_ahead: sequences held at once, as what was given or as results; None for 1024, and
            fewer where they would take more than 256 MiB.
        batch: sequences in a batch at most; None to find by trying, which takes a fraction of a second
            and is kept for later calls.
        progress: called with the number of sequences that were run, in the caller's thread.

    Yields:
        For an array or a pair what calling the model gives, ``output, (hn, cn)``, of shapes
        ``(time, D * (proj_size or hidden_size))`` and those of the states; for a dict the outputs by
        name, cut to the sequence's own length.  Arrays of the kind that was given.

    Raises:
        InputError: an argument is not possible; or, while iterating and after every result before
            it, a sequence does not fit, and the message names it, counted from 0.
        RunError: ONNX Runtime failed on a sequence, in the same way.
    """
    given = {"workers": workers, "look_ahead": look_ahead, "batch": batch}
    given = {name: None if value is None else positive_integer(name, value) for name, value in given.items()}
    workers, look_ahead, batch = given["workers"], given["look_ahead"], given["batch"]
    if model.metadata.batch_mixes:
        batch = 1  # or each sequence's numbers would depend on those that it is batched with
    if workers is not None and workers > MOST_WORKERS:
        raise InputError(f"workers = {workers} is not possible; it must be from 1 to {MOST_WORKERS}, or None")
    if progress is not None and not callable(progress):
        raise InputError(f"progress = {shown(progress)} is not possible; it must be a function of a number, or None")
    if isinstance(sequences, Mapping) or not isinstance(sequences, Iterable):
        raise InputError(f"sequences must be an iterable of sequences, and not a {type(sequences).__name__}")
    try:
        iterator = iter(sequences)
    except TypeError as error:  # as of an array without axes
        raise InputError(f"sequences must be an iterable of sequences: {reason(error)}") from error
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
        self.padded = Layout.of(model)
        # A module's sequences are padded once that was tried; a bare LSTM is known to ignore what is behind the end.
        self.tried = model.spec is not None or not self.padded.padded
        self.layout = self.padded if self.tried else self.padded.unpadded()
        self.session = model.one_thread()
        self.sequences = sequences
        self.workers = workers
        self.batch = batch
        self.progress = progress
        self.most = look_ahead or LOOK_AHEAD
        self.most_bytes = HELD_BYTES if look_ahead is None else float("inf")
        self.window: list[tuple[int, Item]] = []
        self.window_bytes = 0
        self.held: dict[int, tuple[int, Item]] = {}
        self.held_bytes = 0
        self.read = 0
        self.ended = False
        self.failure: Exception | None = None
        """What ended the reading, raised after the results of all that was read."""

    def results(self) -> Iterator[Any]:
        crew: Workers[Batch, dict[str, Any]] = Workers(self.workers, self._worker, lambda task: [i for i, _ in task])
        given = 0
        try:
            while True:
                # One is read for each that is given away, also while results are ready, so that the
                # workers never wait for a consumer that takes its time.
                self._read_one()
                self._submit(crew)
                while not crew.ready(given) and self._read_one():
                    self._submit(crew)
                self._submit(crew)
                if given == self.read:
                    break
                # Nothing here may name what is yielded: the caller's last result would live as long as the next takes.
                yield self._taken(crew, given)
                given += 1
            if self.failure is not None:
                raise self.failure
        finally:
            crew.close()

    def _taken(self, crew: Workers[Batch, dict[str, Any]], index: int) -> Any:
        outcome = crew.take(index, self.progress)
        size, item = self.held.pop(index)
        self.held_bytes -= size
        if isinstance(outcome, Exception):
            raise outcome
        return _given(outcome, item)

    def _read_one(self) -> bool:
        """Read a sequence if there is room for it; whether one was read."""
        if self.ended or len(self.held) >= self.most or self.held_bytes >= self.most_bytes:
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
            item = self.layout.item(value)
        except InputError as error:
            self.ended, self.failure = True, InputError(f"sequence {self.read}: {error}")
            self.failure.__cause__ = error
            return False
        size = self.layout.held(item)
        self.window.append((self.read, item))
        self.window_bytes += size
        # The arrays go when they were run; what the result is made of stays.
        self.held[self.read] = size, replace(item, arrays={})
        self.held_bytes += size
        self.read += 1
        return True

    def _submit(self, crew: Workers[Batch, dict[str, Any]]) -> None:
        """Hand the window to the workers once it is half of what may be held: the other half is read meanwhile."""
        full = len(self.window) >= -(-self.most // 2) or self.window_bytes >= self.most_bytes / 2
        if not self.window or not (full or self.ended):
            return
        window, self.window, self.window_bytes = self.window, [], 0
        items = [item for _, item in window]
        self._try_padding(items)
        cost, most = self._cost(items)
        keys = [self.layout.key(item) for item in items]
        runs = plan([item.length for item in items], keys, cost, most if self.layout.together else 1, self.workers)
        del items
        crew.submit(tuple(window[at] for at in run) for run in runs)

    def _try_padding(self, items: Sequence[Item]) -> None:
        """Before sequences of a module are padded: whether it gives the same then.

        Taking lengths is no proof: what comes after its LSTM may look at the padding, as a mean does.
        """
        lengths = sorted({item.length for item in items})
        if self.tried or len(lengths) < 2:
            return
        short, long = (next(item for item in items if item.length == lengths[at]) for at in (0, len(lengths) // 2))
        if self.padded.key(short) != self.padded.key(long):
            return
        self.tried = True
        whole, plain = Padder(self.padded), Padder(self.layout)
        try:
            padded = whole.results(self._run(whole.feeds([long, short])), [long, short])[1]
            alone = plain.results(self._run(plain.feeds([short])), [short])[0]
        except (RunError, MemoryError):
            return  # told with the sequence's number when its turn comes
        if agrees(alone, padded):
            self.layout = self.padded

    def _cost(self, items: Sequence[Item]) -> tuple[Cost, int]:
        """What runs cost, and how many rows they have at most."""
        cost, rows = self._unbounded_cost(items)
        return cost, rows if self.padded.rows is None else min(rows, self.padded.rows)

    def _unbounded_cost(self, items: Sequence[Item]) -> tuple[Cost, int]:
        if self.model.provider == "cuda":
            return CUDA_COST, self.batch or _CUDA_ROWS
        if self.batch is not None:
            return CPU_COST, self.batch
        cost = _costs.get(self.model)
        if cost is None and len(items) >= _WORTH and self.layout.together and self.layout.rows is None:
            cost = self._measured(items)
            if cost is not None:
                _costs[self.model] = cost
        return (CPU_COST, _CPU_ROWS) if cost is None else (cost, cost.best)

    def _measured(self, items: Sequence[Item]) -> Cost | None:
        padder = Padder(self.layout)
        short = min(items, key=lambda item: abs(item.length - _LONG))

        def seconds(rows: int) -> float:
            batch = [short] * rows
            started = _clock()
            self._run(padder.feeds(batch))
            return _clock() - started

        try:
            if self.model.spec is not None:
                whole, short = short, _first(short, _SHORT)
                seconds(1)
                step = seconds(1) / short.length
                short = _first(whole, max(_SHORT, min(_LONG, int(_BUDGET / (_STEPS * step)))))
            return measured(seconds, short.length)
        except (RunError, MemoryError):
            return None  # told with the sequence's number when its turn comes

    def _worker(self) -> Callable[[Batch], Outcome]:
        padder = Padder(self.layout)

        def work(batch: Batch) -> Outcome:
            padder.layout = self.layout  # it may have become the padded one, which is right for equal lengths too
            items = [item for _, item in batch]
            try:
                found = padder.results(self._run(padder.feeds(items)), items)
            except (RunError, MemoryError) as error:
                if len(batch) > 1:  # alone each tells whether it is the one
                    return {index: outcome for one in batch for index, outcome in work((one,)).items()}
                said = error if isinstance(error, RunError) else f"{self.model.path}: ran out of memory"
                failure = RunError(f"sequence {batch[0][0]}: {said}")
                failure.__cause__ = error
                return {batch[0][0]: failure}
            return {index: result for (index, _), result in zip(batch, found, strict=True)}

        return work

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, Any]:
        names = list(self.model.outputs)
        try:
            return dict(zip(names, self.session.run(names, feeds), strict=True))
        except MemoryError as error:
            raise RunError(f"{self.model.path}: ran out of memory while running") from error
        except ort_errors() as error:
            raise RunError(f"{self.model.path}: ONNX Runtime failed while running: {first_line(error)}") from error


def measured(seconds: Callable[[int], float], length: int, budget: float = _BUDGET) -> Cost:
    """What runs cost, by trying `ROWS` until more rows are clearly worse, and all of them again while time is left.

    Args:
        seconds: runs so many rows and says how long it took.
        length: the time steps of those runs.
        budget: in seconds; the size that is being tried when it ends is still tried.
    """
    least: dict[int, float] = {}
    spent = 0.0
    for fewer, rows in zip((1, *ROWS), ROWS, strict=False):
        # The first run at a size allocates what the later ones have.
        first, second = seconds(rows), seconds(rows)
        spent += first + second
        least[rows] = min(first, second)
        if spent >= budget or least[rows] / rows > least[fewer] / fewer * _WORSE:
            break
    # In turns, so that what else the machine does falls on all of them.
    for rows in list(least) * (_REPEATS - 2):
        if spent >= budget:
            break
        again = seconds(rows)
        spent += again
        least[rows] = min(least[rows], again)
    return Cost(_CALL, rising([(rows, taken / length) for rows, taken in least.items()]))


_costs: weakref.WeakKeyDictionary[Model, Cost] = weakref.WeakKeyDictionary()
"""What was measured of a model, for later calls."""


def _first(item: Item, steps: int) -> Item:
    """The beginning of a bare LSTM's sequence."""
    steps = min(steps, item.length)
    arrays = {**item.arrays, "input": item.arrays["input"][:steps]}
    arrays.pop("lengths", None)
    return replace(item, arrays=arrays, sizes={**item.sizes, "time": steps}, length=steps)


def _given(outputs: dict[str, Any], item: Item) -> Any:
    """Results as the caller wants them."""
    values = {name: item.restore(value) if isinstance(value, np.ndarray) else value for name, value in outputs.items()}
    return (values["output"], (values["hn"], values["cn"])) if item.pair else values
