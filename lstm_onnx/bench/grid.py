"""What is timed: the cases, the sizes of each, and sequences of varying length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CASES = ("step", "chunk", "batch", "pool", "map", "memory", "start")
"""In the order in which they are run."""
GRIDS = ("quick", "full")
DEFAULT_SECONDS = {"quick": 60.0, "full": 600.0}
DEFAULT_ROUNDS = {"quick": 15, "full": 31}
SHORTEST, LONGEST = 2, 400
"""Steps of the sequences of map and memory."""
_TYPICAL, _SIGMA = 50, 0.9
"""The median of their lengths, and the deviation of the logarithm."""


@dataclass(frozen=True)
class Point:
    """One comparison: a case and its sizes.

    `batch` is rows of a batch, streams of a pool, or sequences of a map; `time` steps in a call, 0
    where lengths vary.
    """

    case: str
    batch: int = 1
    time: int = 1

    def __str__(self) -> str:
        """As in "batch of 8, 50 steps"."""
        if self.case == "step":
            return "one step" if self.batch == 1 else f"one step, batch {self.batch}"
        if self.case == "chunk":
            return f"chunk of {self.time} steps"
        if self.case == "batch":
            return f"batch {self.batch}, {self.time} steps"
        if self.case == "pool":
            return f"pool of {self.batch} streams"
        if self.case in ("map", "memory"):
            return f"{self.case} of {self.batch} sequences"
        return self.case


_POINTS = {
    "quick": {
        "step": [Point("step")],
        "chunk": [Point("chunk", 1, 16)],
        "batch": [Point("batch", 8, 50)],
        "pool": [Point("pool", 64)],
        "map": [Point("map", 128, 0)],
        "memory": [Point("memory", 512, 0)],
        "start": [Point("start")],
    },
    "full": {
        "step": [Point("step"), Point("step", 8)],
        "chunk": [Point("chunk", 1, time) for time in (4, 16, 64)],
        "batch": [Point("batch", batch, time) for batch in (1, 8, 32, 64) for time in (20, 100)],
        "pool": [Point("pool", streams) for streams in (8, 64)],
        "map": [Point("map", 512, 0)],
        "memory": [Point("memory", 512, 0)],
        "start": [Point("start")],
    },
}


def points(grid: str, cases: Sequence[str] = ()) -> list[Point]:
    """The points of a grid, "quick" or "full", of some cases or of all; in the order of `CASES`."""
    return [point for case in CASES if not cases or case in cases for point in _POINTS[grid][case]]


def drawn_lengths(count: int, seed: int) -> list[int]:
    """How many steps each of `count` sequences has: log-normal, from `SHORTEST` to `LONGEST`."""
    drawn = np.random.default_rng(seed).lognormal(np.log(_TYPICAL), _SIGMA, count)
    return [int(length) for length in np.clip(np.rint(drawn), SHORTEST, LONGEST)]


def drawn_sequence(length: int, features: int, dtype: str, seed: int) -> np.ndarray:
    """One sequence, ``(length, features)``, standard normal."""
    return np.random.default_rng((seed, length)).standard_normal((length, features)).astype(dtype)
