"""What is timed: the cases, their sizes, and sequences of varying length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CASES = ("step", "chunk", "stream", "batch", "pool", "map")
"""In the order in which they are run."""
FURTHER_CASES = ("sequence", "generate")
"""Of files with loops: whole sequences one at a time, and of a file that generates the loop around its step."""
DEFAULT_SECONDS = 60.0
DEFAULT_ROUNDS = 15
SHORTEST, LONGEST = 2, 400
"""Time steps of the sequences of map."""
_MEDIAN, _SIGMA = 50, 0.9
"""Of the log-normal lengths: their median, and the standard deviation of their logarithm."""


@dataclass(frozen=True)
class Point:
    """One comparison: a case and its sizes.

    `batch` is the rows of a batch, the streams of a pool, or the sequences of a map; `time` the steps in a
    call or, of a stream, in a sequence; 0 where lengths vary.
    """

    case: str
    batch: int = 1
    time: int = 1

    def __str__(self) -> str:
        """As in "batch 8, 50 steps"."""
        if self.case == "step":
            return "one step" if self.batch == 1 else f"one step, batch {self.batch}"
        if self.case == "chunk":
            return f"chunk of {self.time} steps"
        if self.case == "stream":
            return f"sequence of {self.time} steps, in chunks"
        if self.case == "batch":
            return f"batch {self.batch}, {self.time} steps"
        if self.case == "pool":
            return f"pool of {self.batch} streams"
        if self.case == "sequence":
            return f"one sequence of {self.time} steps"
        if self.case == "generate":
            return f"generating {self.time} steps"
        return f"{self.case} of {self.batch} sequences"


POINTS = (
    Point("step"),
    Point("chunk", 1, 16),
    Point("stream", 1, 100),
    Point("batch", 8, 50),
    Point("pool", 64),
    Point("map", 128, 0),
)
"""One for each case, in the order of `CASES`."""
FURTHER_POINTS = (Point("sequence", 1, 100), Point("generate", 1, 200))
"""One for each of `FURTHER_CASES`."""


def points(cases: Sequence[str] = ()) -> list[Point]:
    """Those of `POINTS` and `FURTHER_POINTS` whose case is in `cases`; all of `POINTS` where that is empty."""
    return [point for point in (*POINTS, *FURTHER_POINTS) if point.case in (cases or CASES)]


def draw_lengths(count: int, seed: int) -> list[int]:
    """The time steps of `count` sequences: log-normal, from `SHORTEST` to `LONGEST`."""
    lengths = np.random.default_rng(seed).lognormal(np.log(_MEDIAN), _SIGMA, count)
    return [int(length) for length in np.clip(np.rint(lengths), SHORTEST, LONGEST)]


def draw_sequence(length: int, features: int, dtype: str, seed: int) -> np.ndarray:
    """One sequence, ``(length, features)``, standard normal."""
    return np.random.default_rng((seed, length)).standard_normal((length, features)).astype(dtype)
