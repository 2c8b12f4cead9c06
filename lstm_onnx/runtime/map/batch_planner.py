"""Plans which sequences run in one batch, from their lengths and the cost of a run, without ONNX Runtime.

With more rows per run a row is cheaper, but every row costs as much as the longest.  So sequences are sorted by length
and divided so that the total cost is smallest; the cost of a step is measured once per model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import get_clock_info, perf_counter, thread_time

from ..tuning import (
    CALIBRATION_REPEATS,
    CALIBRATION_ROWS,
    CALIBRATION_SECONDS,
    CALL_SECONDS,
    EQUAL_RATE,
    RUN_ROWS,
    WORSE_RATE,
)


@dataclass(frozen=True)
class Cost:
    """The cost of a run, ``call + length * step(rows)``, in seconds or any other unit.

    Attributes:
        call: the fixed cost of a run.
        steps: pairs of a number of rows, the first of which is 1, and the cost of one time step for that many rows.
            Between the pairs and after the last one, the cost is linear.
    """

    call: float
    steps: tuple[tuple[int, float], ...]

    def step(self, rows: int) -> float:
        """The cost of a time step with `rows` rows."""
        if len(self.steps) == 1:
            return self.steps[0][1] * rows / self.steps[0][0]
        at = bisect_left(self.steps, rows, key=lambda pair: pair[0])
        at = min(max(at, 1), len(self.steps) - 1)
        (few, low), (many, high) = self.steps[at - 1], self.steps[at]
        return low + (high - low) * (rows - few) / (many - few)

    @property
    def row(self) -> float:
        """The least measured cost of a row's time step."""
        return min(step / rows for rows, step in self.steps)

    @property
    def best(self) -> int:
        """The smallest measured number of rows with about the minimal cost of a row."""
        return next(rows for rows, step in self.steps if step / rows <= self.row * EQUAL_RATE)


CPU_COST = Cost(1.0, ((1, 2.0), (2, 3.0)))
"""Used without a measurement: a run costs as much as one more row, and a call as half a step of one row."""
CUDA_COST = Cost(64.0, ((1, 65.0), (2, 66.0)))
"""A GPU takes about as long for a few rows as for one."""


def monotonic(measured: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], ...]:
    """Rows and costs, without measurement noise that makes more rows cheaper than fewer."""
    steps = list(measured)
    for at in range(len(steps) - 1, 0, -1):
        if steps[at - 1][1] > steps[at][1]:
            steps[at - 1] = (steps[at - 1][0], steps[at][1])
    return tuple(steps)


def plan(
    lengths: Sequence[int], keys: Sequence[Hashable], cost: Cost, most: int, workers: int = 1
) -> list[tuple[int, ...]]:
    """Divide sequences into runs.

    Args:
        lengths: the time steps of each sequence.
        keys: only sequences of equal keys may share a run.
        cost: of a run.
        most: the largest number of rows in a run.
        workers: how many runs are executed at once.

    Returns:
        The sequences of each run by their index in `lengths`, longest first; the most expensive run comes first,
        so that the workers end at the same time.
    """
    groups = _groups(lengths, keys)
    most = max(1, min(most, -(-len(lengths) // workers)))
    steps = [(rows, cost.step(rows)) for rows in range(1, most + 1)]
    common = [steps[rows - 1] for rows in RUN_ROWS if rows < most] + steps[-1:]
    runs = []
    for group in groups:
        whole = steps[len(group) - 1 : len(group)]  # empty if these are too many for one run
        runs += _divide(group, lengths, cost.call, sorted({*common, *whole}))
    return sorted(runs, key=lambda run: -(cost.call + lengths[run[0]] * steps[len(run) - 1][1]))


def in_order(lengths: Sequence[int], keys: Sequence[Hashable], most: int) -> list[tuple[int, ...]]:
    """As `plan`, for runs whose time per row does not depend on the number of rows."""
    return [tuple(group[at : at + most]) for group in _groups(lengths, keys) for at in range(0, len(group), most)]


def _groups(lengths: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    """The sequences of each key, longest first."""
    groups: dict[Hashable, list[int]] = {}
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        groups.setdefault(keys[index], []).append(index)
    return list(groups.values())


def _divide(
    group: Sequence[int], lengths: Sequence[int], call: float, steps: Sequence[tuple[int, float]]
) -> list[tuple[int, ...]]:
    """The cheapest division of a sorted group into runs; `steps` has the possible numbers of rows and a step's cost.

    Dynamic programming: an optimal division extends an optimal one of a prefix.
    """
    best = [0.0]
    previous = [0]
    longest = [lengths[index] for index in group]
    for end in range(1, len(group) + 1):
        if end <= steps[-1][0]:
            possible = [(rows, cost) for rows, cost in steps if rows <= end]
        costs = [best[end - rows] + longest[end - rows] * cost for rows, cost in possible]
        least = min(costs)
        best.append(least + call)
        previous.append(end - possible[costs.index(least)][0])
    bounds = [len(group)]
    while bounds[-1]:
        bounds.append(previous[bounds[-1]])
    return [tuple(group[start:end]) for start, end in pairwise(reversed(bounds))]


clock = thread_time if get_clock_info("thread_time").resolution < 1e-6 else perf_counter
"""The thread's CPU time if its resolution is fine enough, so that other programs do not count."""


def measured_cost(seconds: Callable[[int], float], length: int, budget: float = CALIBRATION_SECONDS) -> Cost:
    """Measure the cost of runs: try `CALIBRATION_ROWS` until more rows are clearly worse; repeat while time remains.

    Args:
        seconds: executes a run with that many rows, and returns how long it took.
        length: the time steps of these runs.
        budget: in seconds; the size that is being tried when it ends is still measured.
    """
    least: dict[int, float] = {}
    spent = 0.0

    def measure(rows: int) -> None:
        nonlocal spent
        taken = seconds(rows)
        spent += taken
        least[rows] = min(taken, least.get(rows, taken))

    def worse(fewer: int, rows: int) -> bool:
        return least[rows] / rows > least[fewer] / fewer * WORSE_RATE

    for fewer, rows in zip((1, *CALIBRATION_ROWS), CALIBRATION_ROWS, strict=False):
        # The first run at a size allocates memory that later ones reuse.
        measure(rows)
        measure(rows)
        # Other load makes a run slower, never faster: an apparently worse size is measured again.
        for _ in range(CALIBRATION_REPEATS - 2):
            if spent < budget and worse(fewer, rows):
                measure(rows)
        if spent >= budget or worse(fewer, rows):
            break
    # Alternating between sizes, so that other load on the machine affects all of them.
    for rows in list(least) * (CALIBRATION_REPEATS - 2):
        if spent < budget:
            measure(rows)
    return Cost(CALL_SECONDS, monotonic([(rows, taken / length) for rows, taken in least.items()]))
