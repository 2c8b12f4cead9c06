"""Times candidates in turns, so that results are ratios within a round.

Clock speed, caches and other processes change from second to second.  Candidates in one round have the same
conditions, so the ratio of two times in one round says more than the ratio of two medians.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LSTMOnnxError

LEAST_SAMPLE = 0.002
"""The minimum of a sample, in seconds: far above the clock's resolution and the cost of a call."""
LEAST_ROUNDS = 3
"""The number of rounds that are run however long they take."""
WARM_UP = 0.01
"""Seconds for which a short call is repeated before each sample of it: a core that was idle needs some milliseconds
to reach full speed again."""
_WARM_CALLS, _WARM_SECONDS = 4, 0.2
"""The most calls and the most seconds of a warm-up: runtimes cache input shapes in the first few calls."""
_MOST_RESTS = 40
"""The most seconds of rest before a sample, however long threads spin."""
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Candidate:
    """One way to compute a case, timed against the others.

    Attributes:
        name: its name in the report.
        run: the function that is timed; takes no arguments.
        around: a context for each of its samples, which is not timed, for settings that apply only to this candidate.
        output: converts what `run` returned to one array, which is compared with the other candidates' before timing.
        is_lstm_onnx: whether it is this runtime.
        errors: the exceptions that `run` raises if this candidate does not support the case.
    """

    name: str
    run: Callable[[], Any]
    around: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    output: Callable[[Any], np.ndarray] | None = None
    is_lstm_onnx: bool = False
    errors: tuple[type[Exception], ...] = (LSTMOnnxError,)


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample."""
        low, median, high = (float(value) for value in np.percentile(np.asarray(samples, np.float64), [25, 50, 75]))
        return cls(median, low, high)


def ratios(samples: Sequence[float], baseline: Sequence[float]) -> Spread:
    """The spread of `samples` / `baseline`, round by round."""
    return Spread.of([sample / base for sample, base in zip(samples, baseline, strict=True)])


def turns(count: int, round_index: int) -> list[int]:
    """The order of `count` candidates in a round, which changes so that none is always first."""
    start = round_index % count
    return [*range(start, count), *range(start)]


def interleaved(
    candidates: Sequence[Candidate],
    *,
    rounds: int,
    seconds: float = math.inf,
    settle: float = 0.0,
    known: Mapping[str, float] | None = None,
    least: float = LEAST_SAMPLE,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], object] = time.sleep,
    used: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time candidates in turns.

    Args:
        candidates: the candidates, whose names must differ.
        rounds: the maximum number of samples of each.
        seconds: no new round starts after this time, once `LEAST_ROUNDS` (or `rounds`, if fewer) are done.
        settle: seconds of rest before each sample, repeated while threads of the previous candidate spin.
        known: seconds of each candidate's first call; a long one counts as the warm-up.
        least: the minimum of a sample, in seconds; a shorter call is repeated.
        clock: returns nanoseconds.
        sleep: rests for some seconds.
        used: returns the seconds of CPU time of this process.

    Returns:
        The seconds of one call by candidate name, one entry a round; equally many for each.
    """
    began = clock()
    known = known or {}
    repeats = [
        1 if known.get(candidate.name, 0.0) > _WARM_SECONDS else _repeats(candidate, least, clock)
        for candidate in candidates
    ]
    samples: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for index in range(rounds):
        if index >= min(LEAST_ROUNDS, rounds) and (clock() - began) / 1e9 > seconds:
            break
        for turn in turns(len(candidates), index):
            if settle:
                _rest(settle, sleep, used)
            samples[candidates[turn].name].append(_sample(candidates[turn], repeats[turn], clock))
    return samples


def _rest(settle: float, sleep: Callable[[float], object], used: Callable[[], float]) -> None:
    """Wait until no thread of this process uses the CPU: those of ONNX Runtime spin for 15 to 500 ms after a run."""
    for _ in range(_MOST_RESTS):
        before = used()
        sleep(settle)
        if used() - before < settle / 10:
            return


def _repeats(candidate: Candidate, least: float, clock: Callable[[], int]) -> int:
    """Warm a candidate up, and return how many calls make one sample."""
    with candidate.around():
        spent = 0
        for _ in range(_WARM_CALLS):
            began = clock()
            candidate.run()
            taken = clock() - began
            spent += taken
            if spent > _WARM_SECONDS * 1e9:
                break
    return max(1, math.ceil(least * 1e9 / max(taken, 1)))


def _sample(candidate: Candidate, repeats: int, clock: Callable[[], int]) -> float:
    run = candidate.run
    with candidate.around():
        began = clock()
        while repeats > 1:  # until the weights are in the caches again, as they are in a program that runs nothing else
            run()
            if clock() - began >= WARM_UP * 1e9:
                break
        began = clock()
        for _ in range(repeats):
            run()
        return (clock() - began) / repeats / 1e9


@contextlib.contextmanager
def no_gc() -> Iterator[None]:
    """A context without garbage collection, which is done before it."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[bool]:
    """Pin all threads of this process to `cores`; each thread's affinity is restored afterwards.

    Yields whether they are pinned: not every system supports it.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = {task: os.sched_getaffinity(task) for task in _tasks()}
    default = os.sched_getaffinity(0)
    try:
        for task in before:
            _pin(task, cores)
        yield True
    finally:
        for task in _tasks():  # threads that were started meanwhile have inherited the affinity
            _pin(task, before.get(task, default))


def _tasks() -> list[int]:
    """The ids of this process' threads; 0, the calling one, where they cannot be listed."""
    return [int(entry.name) for entry in _TASKS.iterdir()] if _TASKS.is_dir() else [0]


def _pin(task: int, cores: Sequence[int] | set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
        os.sched_setaffinity(task, cores)


@dataclass(frozen=True)
class FirstCalls:
    """The results of calling each candidate once.

    Attributes:
        working: candidates whose call succeeded.
        failed: why the others' calls failed, by name.
        disagreements: a sentence for each candidate whose output differs from the baseline's.
        seconds: the seconds of each call, by name.
    """

    working: list[Candidate]
    failed: dict[str, str]
    disagreements: list[str]
    seconds: dict[str, float]


def call_once(candidates: Sequence[Candidate], baseline: str, tolerance: float) -> FirstCalls:
    """Call each candidate once and compare their outputs, since the speed of wrong numbers means nothing.

    Outputs agree within `tolerance` times the largest value of the baseline's (or times 1).
    """
    working: list[Candidate] = []
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    outputs: dict[str, np.ndarray] = {}
    for candidate in candidates:
        try:
            with candidate.around():
                began = time.perf_counter()
                result = candidate.run()
                seconds[candidate.name] = time.perf_counter() - began
        except candidate.errors as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            failed[candidate.name] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            continue
        working.append(candidate)
        if candidate.output is not None:
            outputs[candidate.name] = candidate.output(result)
    expected = outputs.pop(baseline, None)
    if expected is None:
        return FirstCalls(working, failed, [], seconds)
    scale = max(1.0, float(np.abs(expected).max()))
    disagreements = []
    for name, output in outputs.items():
        if output.shape != expected.shape:
            disagreements.append(f"the output of {name} has shape {output.shape}, that of {baseline} {expected.shape}")
            continue
        difference = float(np.abs(output - expected).max())
        if not difference <= tolerance * scale:
            disagreements.append(f"the output of {name} differs from that of {baseline} by {difference:.2g}")
    return FirstCalls(working, failed, disagreements, seconds)
