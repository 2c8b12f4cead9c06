"""Callers on threads, and what holds them back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from lstm_onnx.runtime.batcher.batcher import BatchedStream, Batcher

from ..models import randoms

LONG = 20
"""Seconds for which nothing here ever has to wait."""


class Gate:
    """Holds the batches of a batcher until it is opened, and writes down their sizes."""

    def __init__(self, server: Batcher) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.sizes: list[int] = []
        self._step = server.pool.step
        server.pool.step = self.step  # type: ignore[method-assign]

    def step(self, slots: Any, x: Any) -> Any:
        self.reached.set()
        assert self.open.wait(LONG)
        self.sizes.append(len(slots))
        return self._step(slots, x)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


class Asking(threading.Thread):
    """A caller on a thread of its own, and how it went."""

    def __init__(self, stream: BatchedStream, x: Any) -> None:
        super().__init__(daemon=True)
        self.stream, self.x = stream, x
        self.y: Any = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.y = self.stream.step(self.x)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def done(self) -> Asking:
        self.join(LONG)
        assert not self.is_alive()
        return self


def busy(server: Batcher, gate: Gate) -> Asking:
    """A request that is running, and stays so until the gate is opened."""
    asking = Asking(server.open(), randoms(1, 1, 4))
    assert gate.reached.wait(LONG)
    return asking
