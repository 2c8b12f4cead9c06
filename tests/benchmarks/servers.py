"""A `Batcher` with many clients, on threads and on asyncio, beside plain sessions one at a time.

``python -m tests.benchmarks.servers SOURCE [STREAMS]``
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lstm_onnx.bench.cases import RUNTIME, BenchmarkCase, make_case
from lstm_onnx.bench.compare import time_case
from lstm_onnx.bench.measure import Candidate, Spread
from lstm_onnx.bench.opened import BenchmarkSubject, open_subject
from lstm_onnx.bench.report import Comparison
from lstm_onnx.bench.sizes import Point
from lstm_onnx.exporter.sources.source import load_source
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.runtime.pool.pinned_threads import allowed_cores

WINDOW = 0.002
"""Seconds that the batcher waits for a batch to fill: its default."""
STEPS = 64
"""Steps that each client takes in one timed call; starting and stopping the clients takes about as long as two."""
THREADS = 4
"""Of a server whose threads share the streams."""


@contextmanager
def thread_waves(
    model: Model, rows: Sequence[np.ndarray], steps: int, threads: int | None = None
) -> Iterator[Callable[[], None]]:
    """A call in which a stream for each of `rows` takes `steps` steps with it, one after another.

    Each stream has its own thread; with `threads`, so many threads share the streams, and each submits the
    steps of all its streams before it waits for them.  Threads are started once and wait between calls.
    """
    with _streams(model, len(rows)) as streams:
        count = threads or len(rows)
        begin, end = (threading.Barrier(count + 1) for _ in range(2))
        failed: list[Exception] = []

        def client(share: list[tuple[Any, np.ndarray]]) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                while True:
                    begin.wait()
                    try:
                        for _ in range(steps):
                            if threads is None:
                                share[0][0].step(share[0][1])
                            else:
                                for pending in [stream.submit(row) for stream, row in share]:
                                    pending.result()
                    except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
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
    with Batcher(model, max_batch=count, window=WINDOW) as server:
        yield [server.open() for _ in range(count)]


def compare_servers(subject: BenchmarkSubject, streams: int, rounds: int = 15, seconds: float = 60.0) -> Comparison:
    """Time the clients of a batcher beside plain sessions, one stream at a time.

    One timed call is `STEPS` steps of each stream.
    """
    point = Point("pool", streams)
    pool = make_case(subject, point)
    x = subject.feeds(streams, 1)[subject.specs[0].name]
    axis = subject.batch_axis(subject.specs[0])
    assert axis is not None
    rows = [np.ascontiguousarray(np.take(x, [index], axis)) for index in range(streams)]
    plain = pool.candidates[0]

    def plain_steps() -> None:
        for _ in range(STEPS):
            plain.run()

    with (
        thread_waves(subject.model, rows, STEPS) as threaded,
        thread_waves(subject.model, rows, STEPS, THREADS) as shared,
        asyncio_waves(subject.model, rows, STEPS) as awaited,
    ):
        candidates = [
            Candidate(pool.baseline, plain_steps, errors=plain.errors),
            Candidate(f"{RUNTIME} batcher, a thread per stream", threaded, is_lstm_onnx=True),
            Candidate(f"{RUNTIME} batcher, {THREADS} threads", shared, is_lstm_onnx=True),
            Candidate(f"{RUNTIME} batcher, asyncio", awaited, is_lstm_onnx=True),
        ]
        case = BenchmarkCase(candidates, pool.baseline, "step", streams * STEPS, {})
        comparison, _ = time_case(case, point, subject, rounds, seconds)
    return comparison


def main() -> None:
    """Print the ratios."""
    source, streams = load_source(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 64
    with (
        TemporaryDirectory() as folder,
        open_subject(source, "cpu", len(allowed_cores()), 0, Path(folder)) as subject,
    ):
        for timing in compare_servers(subject, streams).timings:
            ratio: Spread = timing.ratio
            print(
                f"{timing.candidate}: {ratio.median:.3g} [{ratio.low:.3g}, {ratio.high:.3g}] times the baseline's time"
            )


if __name__ == "__main__":
    main()
