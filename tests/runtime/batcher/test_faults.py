"""Callers that fail, give up, come too late or too many harm no other."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.runtime.batcher.request import Request

from ..models import bits, lookup, randoms
from .callers import LONG, Asking, Gate, busy, until


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


def test_a_step_of_several_sequences_is_refused(model: Model) -> None:
    with (
        Batcher(model) as batcher,
        pytest.raises(InputError, match="each stream carries 1; open a stream for each"),
    ):
        batcher.open().step(np.zeros((1, 2, 4), np.float32))


def test_a_failing_request_harms_no_other(tmp_path: Path) -> None:
    model = lookup(tmp_path / "l.onnx")
    with Batcher(model, window=LONG * 10) as server:
        streams = [server.open() for _ in range(4)]
        for repeat in range(3):
            callers = [Asking(stream, np.array([[99 if row == repeat else 1]])) for row, stream in enumerate(streams)]
            for row, caller in enumerate(callers):
                assert isinstance(caller.done().error, RunError) == (row == repeat)
        assert [stream.state["state"][0, 0] for stream in streams] == [4, 4, 4, 6]


def test_callers_that_come_too_late(model: Model) -> None:
    server = Batcher(model, window=0, queue=1, timeout=0.3)
    gate = Gate(server)
    running = busy(server, gate)
    streams = [server.open() for _ in range(2)]
    kept = [bits(stream.state) for stream in streams]
    callers = [Asking(stream, randoms(1, 1, 4)) for stream in streams]  # one is queued, one waits for room
    for caller in callers:
        assert isinstance(caller.done().error, TimeoutError)
        assert "withdrawn, and the stream is unchanged" in str(caller.error)
    assert isinstance(running.done().error, TimeoutError)
    assert "already running, and the stream advances" in str(running.error)
    with pytest.raises(TimeoutError, match="withdrawn"):
        asyncio.run(streams[0].astep(randoms(1, 1, 4)))
    assert server.waiting == 0
    assert not server._scheduler.queue.overflow
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
    until(lambda: len(server._scheduler.queue.overflow) == 3)
    assert server.waiting == 4
    callers[5].stream.close()  # wherever it waits, it lets the next one in
    until(lambda: server.waiting + len(server._scheduler.queue.overflow) == 6)
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
        while len(server._scheduler.queue.overflow) < 2:
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
        initial_state = bits(stream.state)
        y = stream.step(randoms(1, 1, 4))
        kept = stream.state
        assert bits(kept) != initial_state
        stream.reset()
        assert bits(stream.state) == initial_state
        np.testing.assert_array_equal(stream.step(randoms(1, 1, 4)), y)
        stream.reset()
        stream.state = kept
        assert bits(stream.state) == bits(kept)


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


@pytest.mark.parametrize("abandoned", [{0}, {1}, {2}, {0, 1}, {1, 2}, {0, 1, 2}])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_turn_passes_those_who_gave_up(model: Model, abandoned: set[int], when: str) -> None:
    with Batcher(model) as server:
        core = server._scheduler
        batch = [Request(server.open(), {}, None) for _ in range(3)]
        for request in batch:
            request.started = True
            request.wake = threading.Lock()
            request.wake.acquire()

        def give_up() -> None:
            for index in sorted(abandoned):
                if core.abandon(batch[index]):
                    batch[index].wake_next()

        steps = [lambda: core.deliver(batch, {}), give_up]
        for step in steps if when == "after" else steps[::-1]:
            step()
        for index, request in enumerate(batch):
            assert request.wake is not None
            if index not in abandoned:
                assert request.wake.acquire(timeout=0)
                request.wake_next()
