"""The batcher: callers on threads and in event loops get what they would alone."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lstm_onnx.errors import InputError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.runtime.call_order import Call, CallOrder
from lstm_onnx.spec import ExportOptions
from tests.module_files import module_file

from ..models import accumulator, exported, randoms
from ..threads import in_threads
from .callers import LONG, Asking, Gate, busy, until


def test_threads_get_what_they_would_alone(model: Model) -> None:
    with Batcher(model) as server:

        def caller(index: int) -> None:
            with server.open() as stream:
                alone = model.stream()
                for repeat in range(50):
                    x = randoms(1 + (repeat + index) % 2, 1, 4, seed=50 * index + repeat)
                    np.testing.assert_allclose(stream.step(x), alone(x), rtol=0, atol=1e-6)

        in_threads(*[lambda index=index: caller(index) for index in range(8)])
        until(lambda: len(server.pool) == 0)
    assert len(server) == 0


def test_a_stream_too_many_says_how_to_have_more(model: Model) -> None:
    with Batcher(model, max_batch=2) as server:
        streams = [server.open(), server.open()]
        with pytest.raises(
            InputError, match=r"all 2 slots .* are open; close one, or .* Batcher\(model.pool\(slots="
        ) as e:
            server.open()
        assert e.value.message == "all 2 slots of the pool are open"
        streams[0].close()
        assert server.open().slot is not None
    with Batcher(model.pool(slots=3), max_batch=2) as server:
        assert len([server.open() for _ in range(3)]) == 3


def test_tasks_get_what_they_would_alone(model: Model) -> None:
    server = Batcher(model, window=LONG * 10)
    gate = Gate(server)
    gate.open.set()

    async def caller(index: int) -> None:
        with server.open() as stream:
            alone = model.stream()
            for repeat in range(10):
                x = randoms(1, 1, 4, seed=50 * index + repeat)
                np.testing.assert_allclose(await stream.astep(x), alone(x), rtol=0, atol=1e-6)

    async def main() -> None:
        await asyncio.gather(*[caller(index) for index in range(64)])

    with server:
        asyncio.run(main())
        assert max(gate.sizes) == 64
        in_threads(*[lambda: asyncio.run(asyncio.wait_for(caller(1), LONG))] * 2)  # two loops at once


def test_memory_may_be_written_again_before_its_task_begins(model: Model) -> None:
    chunks = [randoms(1, 1, 4, seed=seed) for seed in range(5)]

    async def main() -> list[np.ndarray]:
        memory, tasks = np.empty((1, 1, 4), np.float32), []
        with server.open() as stream:
            for chunk in chunks:
                memory[...] = chunk
                tasks.append(asyncio.create_task(stream.astep(memory)))
            wrong = stream.astep(memory[0, 0])  # an error is raised where it is awaited
            with pytest.raises(InputError):
                await wrong
            return await asyncio.gather(*tasks)

    with Batcher(model) as server:
        alone = model.stream()
        for found, chunk in zip(asyncio.run(main()), chunks, strict=True):
            np.testing.assert_allclose(found, alone(chunk), rtol=0, atol=1e-6)


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
    server._scheduler.queue.limit = 100
    first = busy(server, gate)
    callers = [Asking(server.open(), randoms(1, 1, 4)) for _ in range(7)]
    again = [Asking(caller.stream, randoms(1, 1, 4)) for caller in callers]
    until(lambda: server.waiting == 14)
    gate.open.set()
    assert [caller.done().error for caller in (first, *callers, *again)] == [None] * 15
    assert gate.sizes == [1, 7, 7]


def test_hundreds_of_calls_that_begin_in_another_order_soon_have_their_turns() -> None:
    """Each looked through all earlier ones at every turn of the loop, which took longer than the steps."""
    order, begun = CallOrder(), []

    async def step(number: int, call: Call) -> None:
        await call.turn()
        begun.append(number)

    async def asked() -> None:
        calls = [order.call() for _ in range(400)]
        coroutines = [call.of(step(number, call)) for number, call in enumerate(calls)]
        await asyncio.wait_for(asyncio.gather(*reversed(coroutines)), 4)

    asyncio.run(asked())
    assert begun == list(range(400))


def test_steps_of_one_stream_run_in_the_order_of_their_calls(model: Model) -> None:
    """The step that was awaited first ran first, and the states of both were wrong without a word."""
    chunks = [randoms(1, 1, 4) for _ in range(4)]
    alone = model.stream()
    wanted = [alone(x) for x in chunks]

    async def asked() -> list[np.ndarray]:
        with Batcher(model) as server, server.open() as stream:
            first = asyncio.create_task(stream.astep(chunks[0]))
            found = [await stream.astep(chunks[1])]
            given_up = asyncio.create_task(stream.astep(chunks[0]))
            given_up.cancel()
            third, fourth = stream.astep(chunks[2]), stream.astep(chunks[3])
            with pytest.raises(InputError, match="an earlier step of this stream was called, but is not awaited yet"):
                await fourth
            found += [await third, await stream.astep(chunks[3])]
            return [await first, *found]

    for one, other in zip(asyncio.run(asked()), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_requests_of_one_stream_keep_their_order(gated: tuple[Batcher, Gate], model: Model) -> None:
    server, gate = gated
    busy(server, gate)
    stream, alone = server.open(), model.stream()
    chunks = [randoms(1, 1, 4, seed=seed) for seed in range(6)]  # two more than the queue holds
    callers = []
    for number, chunk in enumerate(chunks):
        callers.append(Asking(stream, chunk))
        until(lambda number=number: server.waiting + len(server._scheduler.queue.overflow) == number + 1)
    gate.open.set()
    for caller, chunk in zip(callers, chunks, strict=True):
        np.testing.assert_allclose(caller.done().y, alone(chunk), rtol=0, atol=1e-6)


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
        for repeat in range(5):
            feeds = {"drivers": randoms(1, 3, 3, seed=repeat), "series": randoms(1, 3, seed=repeat + index)}
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
    with pytest.raises(InputError, match=r"it is not known which axis of its input x float32 \(N, 3\) is the batch"):
        Batcher(model)
    model = opened()
    model.outputs["y"] = type(model.inputs["x"])("y", np.dtype(np.float32), (3,))
    with pytest.raises(InputError, match=r"it is not known which axis of its output y float32 \(3\) is the batch"):
        Batcher(model)


@pytest.mark.parametrize(
    "change",
    [{"max_batch": 0}, {"queue": True}, {"window": -1}, {"window": None}, {"timeout": "1"}, {"timeout": float("nan")}],
)
def test_impossible_arguments(model: Model, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(change))} = .* is not possible"):
        Batcher(model, **change)


def test_what_is_told_of_each_batch(model: Model) -> None:
    told: list[tuple[int, float]] = []
    with Batcher(model, window=LONG * 10) as server:
        server.on_batch = lambda size, seconds: told.append((size, seconds))
        assert server.on_batch is not None
        asked = [stream.submit(randoms(1, 1, 4)) for stream in [server.open() for _ in range(3)]]
        for pending in asked:
            pending.result(LONG)
    assert [size for size, _ in told] == [3]
    assert told[0][1] > 0


def test_what_is_told_must_be_callable_and_may_raise(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in it ended the thread, and all callers waited for ever."""
    raised: list[type[BaseException] | None] = []
    monkeypatch.setattr("threading.excepthook", lambda args: raised.append(args.exc_type))

    def wrong(size: int, seconds: float) -> None:
        raise ZeroDivisionError

    with Batcher(model, timeout=LONG) as server:
        with pytest.raises(InputError, match="on_batch = 3 is not possible; it must be a function or None"):
            server.on_batch = 3  # type: ignore[assignment]
        server.on_batch = wrong
        stream = server.open()
        for _ in range(2):
            assert stream.step(randoms(1, 1, 4)).shape[:2] == (1, 1)
    assert raised == [ZeroDivisionError] * 2


def test_callbacks_that_raise_end_no_thread(gated: tuple[Batcher, Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    """SystemExit in one ended the thread without a word, and all callers waited for ever."""
    raised: list[type[BaseException] | None] = []
    monkeypatch.setattr("threading.excepthook", lambda args: raised.append(args.exc_type))
    server, gate = gated
    busy(server, gate)
    asked = [server.open().submit(randoms(1, 1, 4)) for _ in range(3)]
    for pending in asked:
        pending.add_done_callback(lambda _: sys.exit(3))
    server.on_batch = lambda *told: sys.exit(len(told))
    gate.open.set()
    for pending in (*asked, server.open().submit(randoms(1, 1, 4))):
        assert pending.result(LONG).shape[:2] == (1, 1)
    server.close()
    assert set(raised) == {SystemExit}


def test_a_task_may_wait_for_less_than_the_others(gated: tuple[Batcher, Gate], model: Model) -> None:
    server, gate = gated
    busy(server, gate)
    stream = server.open()

    async def late() -> None:
        with pytest.raises(TimeoutError, match=r"no output within 0\.02 s; the request was withdrawn"):
            await stream.astep(randoms(1, 1, 4), timeout=0.02)
        with pytest.raises(InputError, match="timeout = -1 is not possible"):
            await stream.astep(randoms(1, 1, 4), timeout=-1)

    asyncio.run(late())
    gate.open.set()
    x = randoms(1, 1, 4)
    np.testing.assert_allclose(stream.step(x), model.stream()(x), rtol=0, atol=1e-6)
