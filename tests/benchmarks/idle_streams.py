"""One active stream of a `Batcher` among idle ones, and all active: as ratios in one run.

``python -m tests.benchmarks.idle_streams FILE [STREAMS] [ROUNDS]``
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

import lstm_onnx
from lstm_onnx.runtime import Model

STEPS = 50
"""Steps of each active stream in one timed call."""


@contextlib.contextmanager
def steps_of(model: Model, active: int, streams: int, window: float) -> Iterator[Callable[[], float]]:
    """A call that returns the seconds per step, while `active` of `streams` open streams step as fast as they can."""
    name = next(name for name in model.inputs if name not in model.states)
    x = np.zeros(model.inputs[name].smallest_shape(), model.inputs[name].dtype)
    with (
        lstm_onnx.Batcher(model.pool(streams), max_batch=64, window=window) as server,
        contextlib.closing(asyncio.new_event_loop()) as loop,
    ):
        opened = [server.open() for _ in range(streams)]

        async def client(index: int) -> None:
            for _ in range(STEPS):
                await opened[index].astep({name: x})

        async def wave() -> None:
            await asyncio.gather(*[client(index) for index in range(active)])

        def run() -> float:
            began = time.perf_counter()
            loop.run_until_complete(wave())
            return (time.perf_counter() - began) / STEPS

        run()
        yield run


def compare(path: str, streams: int = 64, rounds: int = 15) -> dict[str, float]:
    """Ratios of the median times of a step, from interleaved calls.

    Returns:
        ``idle``: one active stream among `streams` open ones, against one alone.
        ``all``: all of `streams` active, against the same with a window so long that every one is waited for.
    """
    with lstm_onnx.load(path, "cpu", threads=1) as model, contextlib.ExitStack() as stack:
        runs = {
            name: stack.enter_context(steps_of(model, *arguments))
            for name, arguments in {
                "alone": (1, 1, 0.002),
                "among": (1, streams, 0.002),
                "all": (streams, streams, 0.002),
                "waiting": (streams, streams, 1.0),
            }.items()
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(run())
    median = {name: statistics.median(values) for name, values in times.items()}
    return {"idle": median["among"] / median["alone"], "all": median["all"] / median["waiting"]}


def main() -> None:
    """Print the ratios."""
    path, *numbers = sys.argv[1:]
    for name, ratio in compare(path, *map(int, numbers)).items():
        print(f"{name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
