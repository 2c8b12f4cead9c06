"""Steps that are asked for ahead: of many streams by one thread, in order, within the queue."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import CancelledError, wait
from pathlib import Path

import numpy as np
import pytest
import torch

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.batcher.batcher import Batcher

from ..models import accumulator, lookup, randoms
from ..threads import in_threads
from .callers import LONG, Gate, busy, until


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_that_share_streams_get_what_each_would_alone(model: Model, threads: int) -> None:
    with Batcher(model, window=LONG * 10) as server:
        gate = Gate(server)
        gate.open.set()
        streams = [(server.open(), model.stream()) for _ in range(12)]

        def drive(own: list) -> None:
            for repeat in range(10):
                chunks = [randoms(1, 1, 4, seed=100 * repeat + stream.slot.index) for stream, _ in own]
                asked = [stream.submit(chunk) for (stream, _), chunk in zip(own, chunks, strict=True)]
                for pending, (_, alone), chunk in zip(asked, own, chunks, strict=True):
                    np.testing.assert_allclose(pending.result(LONG), alone(chunk), rtol=0, atol=1e-6)

        in_threads(*[lambda own=streams[index::threads]: drive(own) for index in range(threads)])
        assert set(gate.sizes) == {12}


def test_steps_of_one_stream_keep_their_order(model: Model) -> None:
    chunks = [randoms(1 + index % 3, 1, 4, seed=index) for index in range(20)]
    with Batcher(model, window=0) as server:
        stream, alone = server.open(), model.stream()
        asked = [stream.submit(chunk) for chunk in chunks]
        for pending, chunk in zip(asked, chunks, strict=True):
            np.testing.assert_allclose(pending.result(LONG), alone(chunk), rtol=0, atol=1e-6)


def test_a_result_can_be_asked_for_again_and_by_many(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    pending = server.open().submit(randoms(1, 1, 4))
    assert gate.reached.wait(LONG)
    assert not pending.done()
    assert not pending.cancel()
    with pytest.raises(TimeoutError, match=r"^no output within 0\.01 s; the step still waits for its turn$"):
        pending.result(0.01)
    found: list[np.ndarray] = []
    askers = [threading.Thread(target=lambda: found.append(pending.result(LONG))) for _ in range(3)]
    for asker in askers:
        asker.start()
    gate.open.set()
    for asker in askers:
        asker.join(LONG)
    found.append(pending.result())
    assert pending.done()
    assert len(found) == 4
    assert all(np.array_equal(other, found[0]) and other is found[0] for other in found[1:])


def test_results_are_of_the_kind_that_was_given(model: Model) -> None:
    x = randoms(2, 4)
    with Batcher(model, window=0) as server:
        expected = model.stream()(x)
        np.testing.assert_allclose(server.open().submit(x).result(), expected, rtol=0, atol=1e-6)
        tensor = server.open().submit(torch.tensor(x)).result()
        assert isinstance(tensor, torch.Tensor)
        named = server.open().submit({"input": x}).result()
        assert list(named) == ["output"]
        np.testing.assert_allclose(named["output"], expected, rtol=0, atol=1e-6)


def test_the_queue_holds_back_who_asks_ahead(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    first = busy(server, gate)
    stream = server.open()
    x = randoms(1, 1, 4)
    asked = [stream.submit(x) for _ in range(4)]
    server.timeout = 0.02
    with pytest.raises(TimeoutError, match=r"^no room in the queue of 4 within 0\.02 s; the request was not queued$"):
        stream.submit(x)
    server.timeout = None
    late = threading.Thread(target=lambda: asked.append(stream.submit(x)), daemon=True)
    late.start()
    late.join(0.05)
    assert late.is_alive()
    assert server.waiting == 4
    gate.open.set()
    late.join(LONG)
    assert len(asked) == 5
    outputs = [pending.result(LONG) for pending in asked]
    assert first.done().error is None
    alone = server.pool.model.stream()
    np.testing.assert_allclose(np.concatenate(outputs), np.concatenate([alone(x) for _ in asked]), rtol=0, atol=1e-6)


def test_room_is_made_by_one_that_is_cancelled(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    busy(server, gate)
    stream = server.open()
    asked = [stream.submit(randoms(1, 1, 4, seed=seed)) for seed in range(4)]
    late = threading.Thread(target=lambda: asked.append(stream.submit(randoms(1, 1, 4))), daemon=True)
    late.start()
    assert asked[1].cancel()
    assert asked[1].done()
    late.join(LONG)
    assert not late.is_alive()
    assert asked[1].cancel()  # a cancelled Future stays so
    gate.open.set()
    with pytest.raises(CancelledError, match="was cancelled before it ran; the stream is unchanged"):
        asked[1].result()
    alone = server.pool.model.stream()
    for pending, seed in zip([asked[0], asked[2], asked[3]], [0, 2, 3], strict=True):
        np.testing.assert_allclose(pending.result(LONG), alone(randoms(1, 1, 4, seed=seed)), rtol=0, atol=1e-6)


def test_who_sleeps_for_a_cancelled_step_is_woken(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    busy(server, gate)
    pending = server.open().submit(randoms(1, 1, 4))
    errors: list[type[BaseException]] = []

    def wait() -> None:
        try:
            pending.result(LONG)
        except CancelledError as error:
            errors.append(type(error))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(0.02)
    assert pending.cancel()
    waiting.join(LONG)
    assert errors == [CancelledError]


def test_a_step_that_fails_tells_its_own_alone(tmp_path: Path) -> None:
    with Batcher(lookup(tmp_path / "l.onnx"), window=LONG * 10) as server:
        streams = [server.open() for _ in range(3)]
        asked = [stream.submit(np.array([[number]])) for stream, number in zip(streams, [1, 99, 2], strict=True)]
        assert asked[0].result(LONG).tolist() == [[2.0, 3.0]]
        with pytest.raises(RunError):
            asked[1].result(LONG)
        assert asked[2].result(LONG).tolist() == [[4.0, 5.0]]


def test_what_does_not_fit_is_not_asked_for(model: Model) -> None:
    with Batcher(model) as server:
        stream = server.open()
        with pytest.raises(InputError, match="axis 2 must be 4"):
            stream.submit(randoms(1, 1, 5))
        assert server.waiting == 0
        stream.close()
        with pytest.raises(InputError, match="the stream is closed"):
            stream.submit(randoms(1, 1, 4))
    with pytest.raises(InputError, match="the batcher is closed"):
        stream.submit(randoms(1, 1, 4))


@pytest.mark.parametrize("drain", [True, False])
def test_the_end_reaches_what_was_asked_for_and_who_waits_for_room(gated: tuple[Batcher, Gate], drain: bool) -> None:
    server, gate = gated
    busy(server, gate)
    stream = server.open()
    asked = [stream.submit(randoms(1, 1, 4)) for _ in range(4)]
    errors: list[str] = []

    def late() -> None:
        try:
            stream.submit(randoms(1, 1, 4))
        except InputError as error:
            errors.append(str(error))

    caller = threading.Thread(target=late, daemon=True)
    caller.start()
    caller.join(0.02)
    ending = threading.Thread(target=lambda: server.close(drain=drain), daemon=True)
    ending.start()
    until(lambda: server._scheduler.closing)
    caller.join(LONG)
    gate.open.set()
    ending.join(LONG)
    assert errors == ["the batcher is closed"]
    for pending in asked:
        if drain:
            assert pending.result(LONG).shape == (1, 1, 5)
        else:
            with pytest.raises(RunError, match="was closed before this step ran"):
                pending.result(LONG)


def test_a_closed_stream_fails_what_it_was_asked_for(gated: tuple[Batcher, Gate]) -> None:
    server, gate = gated
    busy(server, gate)
    stream = server.open()
    pending = stream.submit(randoms(1, 1, 4))
    stream.close()
    with pytest.raises(InputError, match="the stream was closed before this step ran"):
        pending.result(LONG)


def test_a_model_from_elsewhere(tmp_path: Path) -> None:
    model = load(accumulator(tmp_path / "a.onnx"), "cpu", states={"state": "stateN"})
    with Batcher(model, window=0) as server:
        stream = server.open()
        asked = [stream.submit({"x": np.ones((1, 3), np.float32), "scale": np.array(scale)}) for scale in (1, 2, 4)]
        assert [pending.result(LONG)["y"].tolist() for pending in asked] == [[[total] * 3] for total in (1.0, 3.0, 7.0)]


def test_who_waits_for_several_sees_one_that_is_cancelled(model: Model) -> None:
    with Batcher(model) as server:
        gate = Gate(server)
        running = busy(server, gate)
        pending = server.open().submit(randoms(1, 1, 4))
        assert pending.cancel()
        done, waiting = wait([pending], timeout=LONG)
        assert (done, waiting) == ({pending}, set())
        assert pending.cancelled()
        assert pending.cancel()
        gate.open.set()
        assert running.done().error is None


def test_a_result_that_is_kept_does_not_keep_those_of_its_batch(model: Model) -> None:
    with Batcher(model) as server:
        pending = server.open().submit(randoms(1, 1, 4))
        pending.result(LONG)
        assert pending._request is None
        assert not pending.cancel()
        known = weakref.ref(pending)
        gc.disable()
        try:
            del pending
            until(lambda: known() is None)
        finally:
            gc.enable()


def test_what_would_wait_in_a_callback_is_an_error(model: Model) -> None:
    """Callbacks run in the batcher's thread: a step that they waited for could never run."""
    chunk = randoms(1, 1, 4)
    with Batcher(model, max_batch=2, window=0, queue=1) as server:
        streams = [server.open(), server.open()]
        raised: list[BaseException] = []
        finished = threading.Event()

        def called(_: object) -> None:
            ahead = streams[0].submit(chunk)  # which fills the queue
            streams[1].close()
            for call in (lambda: streams[0].step(chunk), lambda: streams[0].submit(chunk), ahead.result, server.open):
                try:
                    call()
                except BaseException as error:  # noqa: BLE001 - a callback's are only logged
                    raised.append(error)
            ahead.add_done_callback(lambda _: finished.set())

        streams[0].submit(chunk).add_done_callback(called)
        assert finished.wait(LONG)
        assert [type(error) for error in raised] == [InputError] * 4
        assert all("runs in the batcher's thread" in str(error) for error in raised)
