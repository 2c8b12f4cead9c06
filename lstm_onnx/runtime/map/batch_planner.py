"""Which sequences go into one run: pure functions on their lengths, without ONNX Runtime.

A row costs less the more rows a run has, and each costs as much as the longest.  So sequences are
sorted by length and cut where the sum of both is least, for what a step costs on the model at hand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

ROWS = (1, 2, 4, 6, 12, 24)
"""The sizes that a calibration tries.

ONNX Runtime multiplies 6 rows at a time where there is AVX2, 12 with AVX-512 and 4 on ARM; what is left over
costs almost as much as a whole tile (measured: 8 rows run at 0.84 of the peak, 6 at 0.91).
"""
CLOSE = 1.04
"""Rates within this factor of the best one are as good: the smaller run needs less memory and ends sooner."""


@dataclass(frozen=True)
class Cost:
    """What a run costs: ``call + length * step(rows)``, in seconds or in any other unit.

    `steps` holds pairs of rows and the cost of one time step at so many rows; the first is for one
    row.  Between them the cost is linear, and so it goes on after the last.
    """

    call: float
    steps: tuple[tuple[int, float], ...]

    def step(self, rows: int) -> float:
        """The cost of a time step of `rows` rows."""
        if len(self.steps) == 1:
            return self.steps[0][1] * rows / self.steps[0][0]
        at = bisect_left(self.steps, rows, key=lambda pair: pair[0])
        at = min(max(at, 1), len(self.steps) - 1)
        (few, low), (many, high) = self.steps[at - 1], self.steps[at]
        return low + (high - low) * (rows - few) / (many - few)

    @property
    def best(self) -> int:
        """The smallest of the measured numbers of rows at which a row costs about the least."""
        least = min(step / rows for rows, step in self.steps)
        return next(rows for rows, step in self.steps if step / rows <= least * CLOSE)


CPU_COST = Cost(1.0, ((1, 2.0), (2, 3.0)))
"""Where nothing was measured: a run costs as much as one more row, and a call as half a step of one."""
CUDA_COST = Cost(64.0, ((1, 65.0), (2, 66.0)))
"""A GPU takes about as long for a few rows as for one."""


def rising(measured: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """`measured` rows and costs with the noise taken out that would make more rows cost less than fewer."""
    steps = list(measured)
    for at in range(len(steps) - 1, 0, -1):
        if steps[at - 1][1] > steps[at][1]:
            steps[at - 1] = (steps[at - 1][0], steps[at][1])
    return tuple(steps)


def plan(
    lengths: Sequence[int], keys: Sequence[Hashable], cost: Cost, most: int, workers: int = 1
) -> list[tuple[int, ...]]:
    """Cut sequences into runs.

    Args:
        lengths: the time steps of each sequence.
        keys: only sequences of equal keys may share a run.
        cost: of a run.
        most: rows that a run may have.
        workers: how many runs go on at once; each gets some of them.

    Returns:
        The sequences of each run by their index in `lengths`, longest first; the dearest run first,
        so that the workers end together.
    """
    groups: dict[Hashable, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        groups.setdefault(keys[index], []).append(index)
    most = max(1, min(most, -(-len(lengths) // workers)))
    step = [cost.step(rows) for rows in range(1, most + 1)]
    runs = [run for group in groups.values() for run in _cut(group, lengths, cost.call, step)]
    return sorted(runs, key=lambda run: -(cost.call + lengths[run[0]] * step[len(run) - 1]))


def _cut(group: Sequence[int], lengths: Sequence[int], call: float, step: Sequence[float]) -> list[tuple[int, ...]]:
    """The cheapest cuts of a group that is sorted, longest first: the best way to any place leads over a best way."""
    best = [0.0] + [float("inf")] * len(group)
    came = [0] * (len(group) + 1)
    for start in range(len(group)):
        so_far, length = best[start] + call, lengths[group[start]]
        for end, each in enumerate(step[: len(group) - start], start + 1):
            total = so_far + length * each
            if total < best[end]:
                best[end], came[end] = total, start
    cuts = [len(group)]
    while cuts[-1]:
        cuts.append(came[cuts[-1]])
    return [tuple(group[start:end]) for start, end in pairwise(reversed(cuts))]
