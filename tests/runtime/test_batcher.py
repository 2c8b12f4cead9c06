"""The batcher: callers on threads and in event loops, each of whom may fail without harm to the others."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.batcher import BatchedStream, Batcher
from lstm_onnx.runtime.batches import Request
from lstm_onnx.runtime.pool import Pool
from lstm_onnx.spec import ExportOptions
from tests.module_files import module_file

from .models import accumulator, exported, model_of, randoms
from .test_pool import bits, in_threads, lookup

LONG = 20
"""Seconds for which nothing here ever has to wait."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("batcher") / "m.onnx"
    exported(path, num_layers=2)
    return load(path, "cpu", threads=1)


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


@pytest.fixture
def gated(model: Model) -> Iterator[tuple[Batcher, Gate]]:
    server = Batcher(model, max_batch=8, window=0, queue=4)
    gate = Gate(server)
    yield server, gate
    gate.open.set()
    server.close()


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


def test_threads_get_what_they_would_alone(model: Model) -> None:
    with Batcher(model) as server:

        def caller(index: int) -> None:
            with server.open() as stream:
                alone = model.stream()
                for turn in range(50):
                    x = randoms(1 + (turn + index) % 2, 1, 4, seed=50 * index + turn)
                    np.testing.assert_allclose(stream.step(x), alone(x), rtol=0, atol=1e-6)

        in_threads(*[lambda index=index: caller(index) for index in range(8)])
        until(lambda: len(server.pool) == 0)
    assert len(server) == 0


def test_tasks_get_what_they_would_alone(model: Model) -> None:
    server = Batcher(model, window=LONG * 10)
    gate = Gate(server)
    gate.open.set()

    async def caller(index: int) -> None:
        with server.open() as stream:
            alone = model.stream()
            for turn in range(10):
                x = randoms(1, 1, 4, seed=50 * index + turn)
                np.testing.assert_allclose(await stream.astep(x), alone(x), rtol=0, atol=1e-6)

    async def main() -> None:
        await asyncio.gather(*[caller(index) for index in range(64)])

    with server:
        asyncio.run(main())
        assert max(gate.sizes) == 64
        in_threads(*[lambda: asyncio.run(asyncio.wait_for(caller(1), LONG))] * 2)  # two loops at once


def test_a_batch_goes_when_every_open_stream_waits(model: Model) -> None:
    with Batcher(model, window=LONG * 10) as server:
        gate = Gate(server)
        gate.open.set()
        streams = [server.open() for _ in range(3)]
        x = randoms(1, 1, 4)
        callers = [Asking(stream, x) for stream in streams]
        assert [caller.done().error for caller in callers] == [None] * 3
        assert gate.sizes == [3]
        # One that leaves is not waited for, nor one that was forgotten.
        callers = [Asking(streams[0], x)]
        streams[1].close()
        del streams[2]
        gc.collect()
        assert callers[0].done().error is None
        assert len(server) == 1


def test_the_window_ends_the_wait(model: Model) -> None:
    with Batcher(model, window=0.01) as server:
        streams = [server.open() for _ in range(3)]
        assert streams[0].step(randoms(1, 1, 4)).shape == (1, 1, 5)


def test_no_more_than_max_batch_go_together_in_turn(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    server._core.queue = 100
    first = busy(server, gate)
    callers = [Asking(server.open(), randoms(1, 1, 4)) for _ in range(7)]
    again = [Asking(caller.stream, randoms(1, 1, 4)) for caller in callers]
    until(lambda: server.waiting == 14)
    gate.open.set()
    assert [caller.done().error for caller in (first, *callers, *again)] == [None] * 15
    assert gate.sizes == [1, 7, 7]


def test_requests_of_one_stream_keep_their_order(gated: tuple[Batcher, Gate], model: Model) -> None:
    server, gate = gated
    busy(server, gate)
    stream, alone = server.open(), model.stream()
    chunks = [randoms(1, 1, 4, seed=seed) for seed in range(6)]  # two more than the queue holds
    callers = []
    for number, chunk in enumerate(chunks):
        callers.append(Asking(stream, chunk))
        until(lambda number=number: server.waiting + len(server._core.overflow) == number + 1)
    gate.open.set()
    for caller, chunk in zip(callers, chunks, strict=True):
        np.testing.assert_allclose(caller.done().y, alone(chunk), rtol=0, atol=1e-6)


# --- kinds of input -----------------------------------------------------------------------------


def test_torch_one_sequence_lists_and_dicts(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx", options=ExportOptions(lengths=True), batch_first=True)
    model = load(tmp_path / "m.onnx", "cpu")
    x = randoms(3, 4)
    with Batcher(model) as server:
        y = server.open().step(x)
        np.testing.assert_allclose(y, model.stream()(x), rtol=0, atol=1e-6)
        found = server.open().step(torch.tensor(x)[None])
        assert isinstance(found, torch.Tensor)
        np.testing.assert_array_equal(found[0], y)
        short = server.open()
        found = short.step({"input": x[None], "lengths": [2]})
        np.testing.assert_allclose(short.state["h0"], model.run({"input": x[None, :2]})["hn"], rtol=0, atol=1e-6)
        assert list(found) == ["output"]
        np.testing.assert_array_equal(server.open().step({"input": x})["output"], y)


def test_a_module_of_several_inputs() -> None:
    model = load(module_file("exogenous_forecaster", "explicit"), "cpu")

    def caller(index: int) -> None:
        stream, alone = server.open(), model.stream()
        for turn in range(5):
            feeds = {"drivers": randoms(1, 3, 3, seed=turn), "series": randoms(1, 3, seed=turn + index)}
            expected, found = alone.run(feeds), stream.step(feeds)
            assert list(found) == list(expected)
            for name, array in expected.items():
                np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6)

    with Batcher(model) as server:
        in_threads(*[lambda index=index: caller(index) for index in range(3)])


@pytest.mark.parametrize("axis", ["batch", None])
def test_what_is_not_of_one_stream_parts_batches(tmp_path: Path, axis: str | None) -> None:
    model = load(accumulator(tmp_path / "a.onnx", axis=axis), "cpu", states={"state": "stateN"})
    with Batcher(model, window=0.05) as server:
        gate = Gate(server)
        gate.open.set()
        scales = [1, 2, 1, 3]
        x = np.ones((1, 3), np.float32)
        callers = [Asking(server.open(), {"x": x, "scale": scale}) for scale in scales]
        assert [caller.done().y["y"].tolist() for caller in callers] == [[[scale] * 3] for scale in scales]


def test_axes_that_say_too_little_are_refused(tmp_path: Path) -> None:
    def opened() -> Model:
        return load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})

    model = opened()
    model.inputs["x"] = type(model.inputs["x"])("x", np.dtype(np.float32), ("N", 3))
    with pytest.raises(InputError, match=r"which axis of its input x float32 \(N, 3\) is the batch is not known"):
        Batcher(model)
    model = opened()
    model.outputs["y"] = type(model.inputs["x"])("y", np.dtype(np.float32), (3,))
    with pytest.raises(InputError, match=r"which axis of its output y float32 \(3\) is the batch is not known"):
        Batcher(model)


@pytest.mark.parametrize(
    "change",
    [{"max_batch": 0}, {"queue": True}, {"window": -1}, {"window": None}, {"timeout": "1"}, {"timeout": float("nan")}],
)
def test_impossible_arguments(model: Model, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(change))} = .* is not possible"):
        Batcher(model, **change)


# --- faults -------------------------------------------------------------------------------------


def test_bad_input_reaches_its_own_caller_alone(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    busy(server, gate)
    stream = server.open()
    for bad in (randoms(1, 1, 5), randoms(1, 2, 4), randoms(1, 1, 4, dtype="float64"), {"gate": 1}, {}, None):
        with pytest.raises(InputError):
            stream.step(bad)
        with pytest.raises(InputError):
            asyncio.run(stream.astep(bad))
    assert server.waiting == 0


def test_a_failing_request_harms_no_other(tmp_path: Path) -> None:
    model = lookup(tmp_path / "l.onnx")
    with Batcher(model, window=LONG * 10) as server:
        streams = [server.open() for _ in range(4)]
        for turn in range(3):
            callers = [Asking(stream, np.array([[99 if row == turn else 1]])) for row, stream in enumerate(streams)]
            for row, caller in enumerate(callers):
                assert isinstance(caller.done().error, RunError) == (row == turn)
        assert [stream.state["state"][0, 0] for stream in streams] == [4, 4, 4, 6]


def test_callers_that_come_too_late(model: Model) -> None:
    server = Batcher(model, window=0, queue=1, timeout=0.05)
    gate = Gate(server)
    running = busy(server, gate)
    streams = [server.open() for _ in range(2)]
    kept = [bits(stream.state) for stream in streams]
    callers = [Asking(stream, randoms(1, 1, 4)) for stream in streams]  # one is queued, one waits for room
    for caller in callers:
        assert isinstance(caller.done().error, TimeoutError)
        assert "taken back, and the stream is as it was" in str(caller.error)
    assert isinstance(running.done().error, TimeoutError)
    assert "running already, and the stream moves on" in str(running.error)
    with pytest.raises(TimeoutError, match="taken back"):
        asyncio.run(streams[0].astep(randoms(1, 1, 4)))
    assert server.waiting == 0
    assert not server._core.overflow
    gate.open.set()
    until(lambda: running.stream.state["h0"].any())
    assert [bits(stream.state) for stream in streams] == kept
    server.timeout = LONG
    assert streams[0].step(randoms(1, 1, 4)).shape == (1, 1, 5)
    assert asyncio.run(streams[1].astep(randoms(1, 1, 4))).shape == (1, 1, 5)
    server.close()


def test_a_full_queue_holds_callers_back(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    running = busy(server, gate)
    callers = [Asking(server.open(), randoms(1, 1, 4)) for _ in range(7)]
    until(lambda: len(server._core.overflow) == 3)
    assert server.waiting == 4
    callers[5].stream.close()  # wherever it waits, it lets the next one in
    until(lambda: server.waiting + len(server._core.overflow) == 6)
    assert server.waiting == 4
    gate.open.set()
    errors = [caller.done().error for caller in (running, *callers)]
    assert [index for index, error in enumerate(errors) if error] == [6]
    assert "closed before this step ran" in str(errors[6])


def test_a_cancelled_task_takes_its_request_back(gated: tuple[Batcher, Gate], model: Model) -> None:
    server, gate = gated
    x = randoms(1, 1, 4)

    async def main() -> None:
        started = server.open()
        running = asyncio.create_task(started.astep(x))
        while not gate.reached.is_set():
            await asyncio.sleep(0.001)
        streams = [server.open() for _ in range(6)]
        tasks = [asyncio.create_task(stream.astep(x)) for stream in streams]
        while len(server._core.overflow) < 2:
            await asyncio.sleep(0.001)
        for task in (running, tasks[1], tasks[5]):  # running, queued, waiting for room
            task.cancel()
        await asyncio.sleep(0.01)
        assert server.waiting == 4
        gate.open.set()
        results = await asyncio.gather(running, *tasks, return_exceptions=True)
        cancelled = [index for index, result in enumerate(results) if isinstance(result, asyncio.CancelledError)]
        assert cancelled == [0, 2, 6]
        expected, (hn, _) = model(x)
        for index in (1, 3, 4, 5):
            np.testing.assert_allclose(results[index], expected, rtol=0, atol=1e-6)
        # What was taken back is as if never asked for; what was running moved on.
        assert not streams[1].state["h0"].any()
        assert not streams[5].state["h0"].any()
        np.testing.assert_allclose(started.state["h0"], hn, rtol=0, atol=1e-6)
        np.testing.assert_allclose(await streams[1].astep(x), expected, rtol=0, atol=1e-6)

    asyncio.run(asyncio.wait_for(main(), LONG))


def test_a_loop_that_is_gone_harms_no_other(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    loop = asyncio.new_event_loop()
    task = loop.create_task(server.open().astep(randoms(1, 1, 4)))
    loop.run_until_complete(asyncio.sleep(0))
    assert gate.reached.wait(LONG)
    loop.close()
    other = Asking(server.open(), randoms(1, 1, 4))
    gate.open.set()
    assert other.done().error is None
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_streams_closed_at_any_time_give_their_slots_back(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    running = busy(server, gate)
    waiting = [Asking(server.open(), randoms(1, 1, 4)) for _ in range(7)]
    until(lambda: server.waiting == 4)
    with pytest.raises(InputError, match="all 8 slots"):
        server.open()
    running.stream.close()
    running.stream.close()
    waiting[0].stream.close()
    assert isinstance(waiting[0].done().error, InputError)
    with pytest.raises(InputError, match="the stream is closed"):
        running.stream.step(randoms(1, 1, 4))
    threading.Timer(0.05, gate.open.set).start()
    new = [server.open(), server.open()]  # waits for the batch that runs
    assert running.done().error is None
    assert not new[0].state["h0"].any()
    assert [caller.done().error for caller in waiting[1:]] == [None] * 6
    with pytest.raises(InputError, match="not an open slot"):
        _ = running.stream.state


def test_state_and_reset(model: Model) -> None:
    with Batcher(model) as server:
        stream = server.open()
        fresh = bits(stream.state)
        y = stream.step(randoms(1, 1, 4))
        kept = stream.state
        assert bits(kept) != fresh
        stream.reset()
        assert bits(stream.state) == fresh
        np.testing.assert_array_equal(stream.step(randoms(1, 1, 4)), y)
        stream.reset()
        stream.state = kept
        assert bits(stream.state) == bits(kept)


# --- the end ------------------------------------------------------------------------------------


def test_close_finishes_what_waits(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    callers = [busy(server, gate), *[Asking(server.open(), randoms(1, 1, 4)) for _ in range(6)]]
    until(lambda: len(server._core.overflow) == 2)
    closing = threading.Thread(target=server.close, daemon=True)
    closing.start()
    until(lambda: server._core.closing)
    with pytest.raises(InputError, match="the batcher is closed"):
        callers[0].stream.step(randoms(1, 1, 4))
    with pytest.raises(InputError, match="the batcher is closed"):
        server.open()
    gate.open.set()
    closing.join(LONG)
    assert not server._core.thread.is_alive()
    assert [caller.done().error for caller in callers] == [None] * 7
    assert len(server.pool) == 0
    server.close()


def test_close_without_what_waits(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    running = busy(server, gate)
    callers = [Asking(server.open(), randoms(1, 1, 4)) for _ in range(6)]
    until(lambda: len(server._core.overflow) == 2)
    threading.Timer(0.05, gate.open.set).start()
    server.close(drain=False)
    assert running.done().error is None
    for caller in callers:
        assert isinstance(caller.done().error, RunError)
        assert "closed before this step ran" in str(caller.error)


@pytest.mark.parametrize("late", range(4))
def test_a_thread_that_gives_up_does_not_leave_those_behind_it_asleep(model: Model, late: int) -> None:
    """Each thread of a batch wakes the next; one that has gone must not be the end of it."""
    with Batcher(model, max_batch=4, window=0.2) as server:
        gate = Gate(server)
        callers = []
        streams = [server.open() for _ in range(4)]
        for index, stream in enumerate(streams):
            server.timeout = 0.05 if index == late else None
            callers.append(Asking(stream, randoms(1, 1, 4, seed=index)))
            until(lambda index=index: server.waiting == index + 1 or gate.reached.is_set())
        assert isinstance(callers[late].done().error, TimeoutError)
        gate.open.set()
        assert all(caller.done().error is None for caller in callers if caller is not callers[late])
        assert gate.sizes in ([4], [3])


@pytest.mark.parametrize("gone", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_turn_passes_those_who_gave_up(model: Model, gone: set[int], when: str) -> None:
    with Batcher(model) as server:
        core = server._core
        batch = [Request(server.open(), {}, None) for _ in range(3)]
        for request in batch:
            request.started = True
            request.wake = threading.Lock()
            request.wake.acquire()

        def give_up() -> None:
            for index in sorted(gone):
                if core.abandon(batch[index]):
                    batch[index].pass_on()

        steps = [lambda: core.deliver(batch, {}), give_up]
        for step in steps if when == "after" else steps[::-1]:
            step()
        for index, request in enumerate(batch):
            assert request.wake is not None
            if index not in gone:
                assert request.wake.acquire(timeout=0)
                request.pass_on()


def test_a_pool_that_is_given_gets_its_slots_back(model: Model) -> None:
    own = Pool(model, slots=3)
    kept = own.open()
    with Batcher(own) as server:
        streams = [server.open(), server.open()]
        own.close(streams[0].slot)
        with pytest.raises(InputError, match="not an open slot"):
            streams[0].step(randoms(1, 1, 4))
        assert "2 streams open, 0 requests" in repr(server)
    assert len(own) == 1
    own.step([kept], randoms(1, 1, 4))


def test_a_batcher_that_nobody_holds_ends(tmp_path: Path) -> None:
    server = Batcher(model_of(tmp_path))
    thread = server._core.thread
    server.open().step(randoms(1, 1, 4))
    del server
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()


EXIT = """
import asyncio, sys, threading, time
import numpy as np
import lstm_onnx
from lstm_onnx.runtime import pool
from lstm_onnx.runtime.batcher import Batcher

how, path = sys.argv[1:]
pool._LANE_WORK = 1.0
server = Batcher(lstm_onnx.load(path, "cpu", threads=2 if how == "lanes" else 1), queue=4)
long, short = np.zeros((30000, 1, 64), np.float32), np.zeros((1, 1, 64), np.float32)
streams = [server.open() for _ in range(8)]

def forever(stream, x):
    while True:
        stream.step(x)

async def tasks():
    while True:
        await asyncio.gather(*[stream.astep(x) for stream, x in zip(streams, [long, short] * 4)])

if how in ("threads", "lanes"):
    acts = [lambda s=s, x=x: forever(s, x) for s, x in zip(streams, [long, short] * 4)]
elif how == "asyncio":
    acts = [lambda: asyncio.run(tasks())]
else:
    acts = []
for act in acts:
    threading.Thread(target=act, daemon=True).start()
if how == "drop":
    del server, streams
else:
    time.sleep(0.1)
print("end", flush=True)
"""


@pytest.mark.parametrize("how", ["threads", "lanes", "asyncio", "idle", "drop"])
def test_the_interpreter_ends_with_work_in_flight(tmp_path: Path, how: str) -> None:
    exported(tmp_path / "m.onnx", input_size=64, hidden_size=64)
    done = subprocess.run(
        [sys.executable, "-c", EXIT, how, str(tmp_path / "m.onnx")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
