"""How many rows a run should have: measured once per model."""

from __future__ import annotations

from collections.abc import Callable
from time import get_clock_info, perf_counter, thread_time

from ..tuning import CALIBRATION_REPEATS, CALIBRATION_ROWS, CALIBRATION_SECONDS, CALL_SECONDS, WORSE_RATE
from .batch_planner import Cost, monotonic

clock = thread_time if get_clock_info("thread_time").resolution < 1e-6 else perf_counter
"""The thread's CPU time where its resolution is fine enough, so that other programs do not count."""


def measured_cost(seconds: Callable[[int], float], length: int, budget: float = CALIBRATION_SECONDS) -> Cost:
    """What runs cost: tries `CALIBRATION_ROWS` until more rows are clearly worse, and repeats while time is left.

    Args:
        seconds: executes a run of so many rows, and returns how long it took.
        length: the time steps of these runs.
        budget: in seconds; a size that is being tried when it ends is still measured.
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
        # Other load makes a run slower, never faster: what looks worse is measured again before it is believed.
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
