"""Clients of the batcher: a thread for each stream, and a coroutine for each stream."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..runtime import Model

WINDOW = 0.002
"""Seconds that the batcher waits for a batch to fill: its own default."""


@contextmanager
def thread_waves(
    model: Model, rows: Sequence[np.ndarray], steps: int, threads: int | None = None
) -> Iterator[Callable[[], None]]:
    """A call in which a stream for each of `rows` takes `steps` steps with it, one after another.

    Each stream has a thread of its own; or `threads` of them share the streams, and each asks for the steps
    of all of its own before it waits for them.  They are started once and wait between calls.
    """
    with _streams(model, len(rows)) as streams:
        count = threads or len(rows)
        begin, end = (threading.Barrier(count + 1) for _ in range(2))
        failed: list[Exception] = []

        def client(own: list[tuple[Any, np.ndarray]]) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                while True:
                    begin.wait()
                    try:
                        for _ in range(steps):
                            if threads is None:
                                own[0][0].step(own[0][1])
                            else:
                                for pending in [stream.submit(row) for stream, row in own]:
                                    pending.result()
                    except Exception as error:  # noqa: BLE001 - it is raised again by whoever waits for this thread
                        failed.append(error)
                    end.wait()

        pairs = list(zip(streams, rows, strict=True))
        clients = [threading.Thread(target=client, args=(pairs[index::count],), daemon=True) for index in range(count)]
        for thread in clients:
            thread.start()

        def run() -> None:
            begin.wait()
            end.wait()
            if failed:
                raise failed.pop()

        try:
            yield run
        finally:
            begin.abort()
            end.abort()
            for thread in clients:
                thread.join()


@contextmanager
def asyncio_waves(model: Model, rows: Sequence[np.ndarray], steps: int) -> Iterator[Callable[[], None]]:
    """A call in which a coroutine for each of `rows` takes `steps` steps with it, one after another."""
    with _streams(model, len(rows)) as streams, contextlib.closing(asyncio.new_event_loop()) as loop:

        async def client(stream: Any, row: np.ndarray) -> None:
            for _ in range(steps):
                await stream.astep(row)

        async def wave() -> None:
            await asyncio.gather(*[client(*pair) for pair in zip(streams, rows, strict=True)])

        yield lambda: loop.run_until_complete(wave())


@contextmanager
def _streams(model: Model, count: int) -> Iterator[list[Any]]:
    from ..runtime.batcher.batcher import Batcher

    with Batcher(model, max_batch=count, window=WINDOW) as server:
        yield [server.open() for _ in range(count)]
