"""Callers of every kind at once, for a while: no output is another's, none is lost, and nobody is left asleep."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import numpy as np
import pytest

from lstm_onnx.errors import InputError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.batcher.batcher import BatchedStream, Batcher

from ..threads import in_threads
from .callers import LONG

FEATURES = 4


KINDS = {"step", "ahead", "cancelled", "closed", "task", "task cancelled"}
"""Of what must have happened."""
LATE = 30.0
"""Seconds in which a busy machine may make up for what has not."""


class Soak:
    """Callers that go on until `end`, or all `KINDS` were; what they draw follows from `seed` and their number."""

    def __init__(self, model: Model, server: Batcher, seed: int, seconds: float) -> None:
        self.model, self.server, self.seed = model, server, seed
        self.end = time.monotonic() + seconds
        self.done: dict[str, int] = {}

    def going(self) -> bool:
        now = time.monotonic()
        return now < self.end or (now < self.end + LATE and not set(self.done) >= KINDS)

    def count(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    def opened(self) -> BatchedStream:
        while True:
            try:
                return self.server.open()
            except InputError:  # all are open
                time.sleep(0.001)

    def chunk(self, rng: random.Random) -> np.ndarray:
        drawn = np.random.default_rng(rng.randrange(2**32))
        return drawn.standard_normal((rng.choice((1, 1, 1, 2)), 1, FEATURES)).astype(np.float32)

    def compare(self, what: str, y: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5, err_msg=what)
        self.count(what)

    def steps(self, rng: random.Random) -> None:
        """One step after another."""
        with self.opened() as stream:
            alone = self.model.stream()
            for _ in range(rng.randrange(1, 30)):
                x = self.chunk(rng)
                self.compare("step", stream.step(x), alone(x))

    def ahead(self, rng: random.Random) -> None:
        """Some at once, of which some are cancelled."""
        with self.opened() as stream:
            alone = self.model.stream()
            for _ in range(rng.randrange(1, 10)):
                chunks = [self.chunk(rng) for _ in range(rng.randrange(1, 6))]
                asked = [stream.submit(chunk) for chunk in chunks]
                cancelled = [rng.random() < 0.2 and pending.cancel() for pending in asked]
                for pending, chunk, abandoned in zip(asked, chunks, cancelled, strict=True):
                    if abandoned:
                        with pytest.raises(CancelledError):
                            pending.result()
                        self.count("cancelled")
                    else:
                        self.compare("ahead", pending.result(LONG), alone(chunk))

    def closed(self, rng: random.Random) -> None:
        """Streams that are closed while they wait."""
        stream = self.opened()
        asked = [stream.submit(self.chunk(rng)) for _ in range(3)]
        stream.close()
        for pending in asked:
            try:
                pending.result(LONG)
            except InputError:
                self.count("closed")

    async def tasks(self, rng: random.Random) -> None:
        """Of asyncio, of which some are cancelled."""
        with self.opened() as stream:
            alone = self.model.stream()
            for _ in range(rng.randrange(1, 30)):
                x = self.chunk(rng)
                task = asyncio.ensure_future(stream.astep(x))
                if rng.random() < 0.1:
                    await asyncio.sleep(rng.choice((0, 0.0003)))
                    task.cancel()
                try:
                    y = await task
                except asyncio.CancelledError:
                    self.count("task cancelled")
                    return
                self.compare("task", y, alone(x))

    def thread(self, number: int, act: Callable[[random.Random], None]) -> None:
        rng = random.Random(100 * self.seed + number)  # noqa: S311 - a test
        while self.going():
            act(rng)

    def loop(self, number: int) -> None:
        async def one(own: int) -> None:
            rng = random.Random(100 * self.seed + own)  # noqa: S311 - a test
            while self.going():
                await self.tasks(rng)

        async def main() -> None:
            await asyncio.gather(*[one(10 * number + own) for own in range(3)])

        asyncio.run(main())


def hurried(soak: Soak, impatient: Batcher) -> None:
    """Steps of a batcher whose time-out is about as long as a batch takes."""
    with impatient.open() as stream:
        try:
            stream.step(np.zeros((1, 1, FEATURES), np.float32))
            soak.count("in time")
        except TimeoutError:
            soak.count("too late")


@pytest.mark.parametrize(
    ("seed", "seconds"), [(0, 1.0), *[pytest.param(seed, 10.0, marks=pytest.mark.slow) for seed in range(1, 4)]]
)
def test_everyone_at_once(model: Model, seed: int, seconds: float) -> None:
    with (
        Batcher(model, max_batch=16, window=0.0005, queue=20) as server,
        Batcher(model, max_batch=4, window=0.0002, timeout=0.0004) as impatient,
    ):
        soak = Soak(model, server, seed, seconds)
        acts = [soak.steps, soak.ahead, soak.ahead, soak.closed, lambda _: hurried(soak, impatient)]
        threads = [lambda number=number, act=act: soak.thread(number, act) for number, act in enumerate([*acts, *acts])]
        loops = [lambda number=number: soak.loop(number) for number in (5, 6)]
        in_threads(*threads, *loops)
        assert server.waiting == impatient.waiting == len(server) == len(impatient) == 0
    assert set(soak.done) >= KINDS
    assert len(server.pool) == 0
