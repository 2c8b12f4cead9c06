"""Defines what is timed: the cases, their sizes, and sequences of varying length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_SECONDS = 60.0
DEFAULT_ROUNDS = 15
SHORTEST, LONGEST = 2, 400
"""The least and the most time steps of the sequences for map."""
_MEDIAN, _SIGMA = 50, 0.9
"""The median of the log-normal lengths, and the standard deviation of their logarithm."""


@dataclass(frozen=True)
class Point:
    """One comparison: a case and its sizes.

    `batch` is the number of rows of a batch, streams of a pool, or sequences of a map; `time` is the number of steps in
    a call or, for a stream, in a sequence, and 0 if lengths vary.
    """

    case: str
    batch: int = 1
    time: int = 1

    def __str__(self) -> str:
        """As in "batch 8, 50 steps"."""
        label = _LABELS[self.case].format(batch=self.batch, time=self.time)
        return f"{label}, batch {self.batch}" if self.case == "step" and self.batch > 1 else label


_LABELS = {
    "step": "one step",
    "chunk": "chunk of {time} steps",
    "stream": "sequence of {time} steps, in chunks",
    "batch": "batch {batch}, {time} steps",
    "pool": "pool of {batch} streams",
    "map": "map of {batch} sequences",
    "sequence": "one sequence of {time} steps",
    "generate": "generating {time} steps",
}
POINTS = (
    Point("step"),
    Point("chunk", 1, 16),
    Point("stream", 1, 100),
    Point("batch", 8, 50),
    Point("pool", 64),
    Point("map", 128, 0),
)
"""One point for each case, in the order in which they are run."""
FURTHER_POINTS = (Point("sequence", 1, 100), Point("generate", 1, 200))
"""Points for files with loops: a whole sequence at a time, and for a generating file the loop around its step."""
CASES, FURTHER_CASES = (tuple(point.case for point in kind) for kind in (POINTS, FURTHER_POINTS))


def points(cases: Sequence[str] = ()) -> list[Point]:
    """The points of `POINTS` and `FURTHER_POINTS` whose case is in `cases`; all of `POINTS` if that is empty."""
    return [point for point in (*POINTS, *FURTHER_POINTS) if point.case in (cases or CASES)]


def draw_lengths(count: int, seed: int) -> list[int]:
    """Random time steps for `count` sequences: log-normal, from `SHORTEST` to `LONGEST`."""
    lengths = np.random.default_rng(seed).lognormal(np.log(_MEDIAN), _SIGMA, count)
    return [int(length) for length in np.clip(np.rint(lengths), SHORTEST, LONGEST)]


def random_sequence(length: int, features: int, dtype: str, seed: int) -> np.ndarray:
    """A random sequence, ``(length, features)``, standard normal."""
    return np.random.default_rng((seed, length)).standard_normal((length, features)).astype(dtype)
