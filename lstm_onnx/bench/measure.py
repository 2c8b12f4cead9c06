"""Timing side by side: contenders take turns, and what counts is their ratio within a round.

A machine's clock, its caches and its neighbours change from second to second.  What runs in the same
round meets the same machine, so the ratio of two times of one round says more than two medians.
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
"""Seconds that a sample lasts at least: far above the clock's resolution and a call's own cost."""
LEAST_ROUNDS = 3
"""Rounds that are done however long they take."""
WARM_UP = 0.01
"""Seconds for which a short call is made again and again before a sample of it: a core that has rested, as one of
a virtual machine may do elsewhere, takes some milliseconds to be as fast as before."""
_WARM_CALLS, _WARM_SECONDS = 4, 0.2
"""Whichever comes first: runtimes learn the shapes of their inputs in the first few calls."""
_MOST_RESTS = 40
"""However long threads spin."""
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Contender:
    """One of those that are timed against each other.

    Attributes:
        name: what the report calls it.
        run: what is timed: no arguments, over inputs that are prepared.
        around: entered around each of its samples, untimed: settings that are its alone.
        numbers: what `run` returns as one array, to compare with the others' before anything is timed.
        ours: whether it is this runtime.
        errors: what `run` raises where it cannot do this at all.
    """

    name: str
    run: Callable[[], Any]
    around: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext)
    numbers: Callable[[Any], np.ndarray] | None = None
    ours: bool = False
    errors: tuple[type[Exception], ...] = (LSTMOnnxError,)


@dataclass(frozen=True)
class Spread:
    """The middle of some samples, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of one sample or more."""
        low, median, high = (float(value) for value in np.percentile(np.asarray(samples, np.float64), [25, 50, 75]))
        return cls(median, low, high)


def ratios(samples: Sequence[float], baseline: Sequence[float]) -> Spread:
    """The spread of `samples` over `baseline`, round by round."""
    return Spread.of([own / other for own, other in zip(samples, baseline, strict=True)])


def turns(count: int, round_index: int) -> list[int]:
    """The order of a round of `count`: each round starts with the next one, so that none is always the first."""
    start = round_index % count
    return [*range(start, count), *range(start)]


def interleaved(
    contenders: Sequence[Contender],
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
    """Time contenders in turns.

    Args:
        contenders: of different names.
        rounds: how many samples of each.
        seconds: no further round is begun after so long, once `LEAST_ROUNDS` (or `rounds`, if fewer) are done.
        settle: seconds of rest before each sample, and again for as long as threads of the one before spin on.
        known: seconds that a contender's first call has taken; one that was long is warm, and not called
            again before it is timed.
        least: how long a sample lasts at least; a shorter call is repeated.
        clock: nanoseconds.
        sleep: what rests.
        used: seconds that this process has computed for.

    Returns:
        By name the seconds of one call, one entry a round; as many for each.
    """
    began = clock()
    known = known or {}
    repeats = [
        1 if known.get(contender.name, 0.0) > _WARM_SECONDS else _repeats(contender, least, clock)
        for contender in contenders
    ]
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for index in range(rounds):
        if index >= min(LEAST_ROUNDS, rounds) and (clock() - began) / 1e9 > seconds:
            break
        for turn in turns(len(contenders), index):
            if settle:
                _rest(settle, sleep, used)
            samples[contenders[turn].name].append(_sample(contenders[turn], repeats[turn], clock))
    return samples


def _rest(settle: float, sleep: Callable[[float], object], used: Callable[[], float]) -> None:
    """Until no thread of this process computes; those of ONNX Runtime spin for 15 to 500 ms, as the processor is."""
    for _ in range(_MOST_RESTS):
        before = used()
        sleep(settle)
        if used() - before < settle / 10:
            return


def _repeats(contender: Contender, least: float, clock: Callable[[], int]) -> int:
    """Warm a contender up, and find how many calls last as long as a sample should."""
    with contender.around():
        spent = 0
        for _ in range(_WARM_CALLS):
            began = clock()
            contender.run()
            taken = clock() - began
            spent += taken
            if spent > _WARM_SECONDS * 1e9:
                break
    return max(1, math.ceil(least * 1e9 / max(taken, 1)))


def _sample(contender: Contender, repeats: int, clock: Callable[[], int]) -> float:
    run = contender.run
    with contender.around():
        began = clock()
        while repeats > 1:  # until the weights are in the caches again, as they are for one who does nothing else
            run()
            if clock() - began >= WARM_UP * 1e9:
                break
        began = clock()
        for _ in range(repeats):
            run()
        return (clock() - began) / repeats / 1e9


@contextlib.contextmanager
def no_gc() -> Iterator[None]:
    """Collect garbage now, and not while something is timed."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def allowed_cores() -> list[int]:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def pinned(cores: Sequence[int]) -> Iterator[bool]:
    """Keep this process, all of its threads, on `cores`; afterwards each thread is where it was.

    Yields whether that is done: not every system can.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = {task: os.sched_getaffinity(task) for task in _tasks()}
    own = os.sched_getaffinity(0)
    try:
        for task in before:
            _pin(task, cores)
        yield True
    finally:
        for task in _tasks():  # threads that were started meanwhile have inherited the cores
            _pin(task, before.get(task, own))


def _tasks() -> list[int]:
    """The ids of this process' threads; 0, the calling one, where they cannot be listed."""
    return [int(entry.name) for entry in _TASKS.iterdir()] if _TASKS.is_dir() else [0]


def _pin(task: int, cores: Sequence[int] | set[int]) -> None:
    with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
        os.sched_setaffinity(task, cores)


@dataclass(frozen=True)
class Trial:
    """What came of calling each contender once.

    `able` are those that could, and `seconds` how long it took them; `unable` why the others could not;
    `disagreements` a sentence for each whose numbers are not the baseline's.
    """

    able: list[Contender]
    unable: dict[str, str]
    disagreements: list[str]
    seconds: dict[str, float]


def tried(contenders: Sequence[Contender], baseline: str, tolerance: float) -> Trial:
    """Call each once, before anything is timed: a speed at which other numbers come out is worth nothing.

    Numbers agree where they are within `tolerance` times the largest of the baseline's (or times 1).
    """
    able: list[Contender] = []
    unable: dict[str, str] = {}
    seconds: dict[str, float] = {}
    numbers: dict[str, np.ndarray] = {}
    for contender in contenders:
        try:
            with contender.around():
                began = time.perf_counter()
                result = contender.run()
                seconds[contender.name] = time.perf_counter() - began
        except contender.errors as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            unable[contender.name] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            continue
        able.append(contender)
        if contender.numbers is not None:
            numbers[contender.name] = contender.numbers(result)
    expected = numbers.pop(baseline, None)
    if expected is None:
        return Trial(able, unable, [], seconds)
    scale = max(1.0, float(np.abs(expected).max()))
    found = []
    for name, array in numbers.items():
        if array.shape != expected.shape:
            found.append(f"{name} gives numbers of shape {array.shape}, and {baseline} of {expected.shape}")
            continue
        apart = float(np.abs(array - expected).max())
        if not apart <= tolerance * scale:
            found.append(f"{name} gives numbers that are {apart:.2g} from those of {baseline}")
    return Trial(able, unable, found, seconds)
