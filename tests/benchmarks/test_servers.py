"""Clients of the batcher: each takes its steps, and an error reaches the caller."""

from __future__ import annotations

import contextlib
import functools
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from . import servers
from .servers import asyncio_waves, thread_waves

ROWS = [np.full((1, 1, 2), index, np.float32) for index in range(5)]
WAVES = [thread_waves, functools.partial(thread_waves, threads=2), asyncio_waves]


class FakeStream:
    def __init__(self, fails: bool) -> None:
        self.steps: list[float] = []
        self.fails = fails

    def step(self, x):
        if self.fails:
            raise ZeroDivisionError
        self.steps.append(float(x[0, 0, 0]))

    async def astep(self, x):
        self.step(x)

    def submit(self, x):
        return SimpleNamespace(result=lambda: self.step(x))


@pytest.fixture
def streams(monkeypatch):
    found: list[FakeStream] = []

    @contextlib.contextmanager
    def opened(model, count):
        found.extend(FakeStream(fails=model == "fails") for _ in range(count))
        yield found

    monkeypatch.setattr(servers, "_streams", opened)
    return found


@pytest.mark.parametrize("waves", WAVES)
def test_every_stream_takes_its_steps(waves, streams):
    before = threading.active_count()
    with waves("model", ROWS, 3) as run:
        run()
        run()
    assert [stream.steps for stream in streams] == [[float(index)] * 6 for index in range(5)]
    assert threading.active_count() == before


@pytest.mark.parametrize("waves", WAVES)
def test_an_error_reaches_the_caller_and_nothing_hangs(waves, streams):
    before = threading.active_count()
    with waves("fails", ROWS, 3) as run, pytest.raises(ZeroDivisionError):
        run()
    assert threading.active_count() == before
