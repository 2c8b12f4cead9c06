"""Threads on cores of their own: calls at the same time, of which each ends before the first error is raised."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lstm_onnx.runtime import load
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.runtime.pool import pinned_threads as module
from lstm_onnx.runtime.pool.pinned_threads import PinnedThreads

from ..models import exported, randoms

LONG = 30.0


@pytest.fixture(params=["as many as cores", "fewer", "more"])
def three(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> PinnedThreads:
    """Three threads; on a machine of three cores, of four, of two."""
    count = {"as many as cores": 3, "fewer": 4, "more": 2}[request.param]
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: set(range(count)), raising=False)
    own = PinnedThreads(3)
    assert module.cores() == count
    return own


def test_calls_are_made_at_the_same_time(three: PinnedThreads) -> None:
    meet = threading.Barrier(3)
    threads = set()

    def call() -> None:
        meet.wait(LONG)
        threads.add(threading.get_ident())

    for _ in range(3):
        three.run([call] * 3)
    assert threading.get_ident() in threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of threads")
def test_as_many_threads_as_cores_stay_on_one_each_and_the_caller_stays_free() -> None:
    allowed = os.sched_getaffinity(0)
    count = len(allowed)
    meet = threading.Barrier(count)
    found: list[set[int]] = []

    def call() -> None:
        meet.wait(LONG)
        found.append(os.sched_getaffinity(0))

    PinnedThreads(count).run([call] * count)
    assert os.sched_getaffinity(0) == allowed
    assert allowed in found
    found.remove(allowed)
    pinned = sorted(map(min, found))
    assert [{core} for core in pinned] == sorted(found, key=min)
    assert len(set(pinned) & allowed) == count - 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of threads")
def test_the_thread_of_the_callers_own_core_does_not_help() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("there is one core")
    own = PinnedThreads(len(allowed))
    own.run([lambda: None] * 2)  # starts its threads, before this one is pinned
    meet = threading.Barrier(2)
    for core in allowed:
        found: list[set[int]] = []

        def call(found: list[set[int]] = found) -> None:
            meet.wait(LONG)
            found.append(os.sched_getaffinity(0))

        with pinned_to(core):
            own.run([call] * 2)
        assert {core} in found  # the caller itself
        found.remove({core})
        assert found[0] < set(allowed)
        assert core not in found[0]


def test_the_caller_makes_the_calls_of_a_thread_that_does_not_wake_up(three: PinnedThreads) -> None:
    three.run([lambda: None] * 3)
    assert three._workers
    asleep = {core: types.SimpleNamespace(tasks=queue.SimpleQueue()) for core in three._workers}
    three._workers, awake = asleep, three._workers  # type: ignore[assignment]
    made: list[int] = []
    three.run([lambda index=index: made.append(index) for index in range(3)])
    assert made == [0, 1, 2]
    three._workers = awake
    late = next(worker.tasks.get() for worker in asleep.values() if not worker.tasks.empty())
    late.make_calls()  # there is nothing left
    assert made == [0, 1, 2]


@contextlib.contextmanager
def pinned_to(core: int) -> Iterator[None]:
    """The calling thread on one core, so that it is known which."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("calls", [2, 3])
def test_fewer_calls_than_threads(three: PinnedThreads, calls: int) -> None:
    made: list[int] = []
    three.run([lambda index=index: made.append(index) for index in range(calls)])
    assert sorted(made) == list(range(calls))


def test_one_call_needs_no_thread() -> None:
    before = threading.active_count()
    ran = []
    PinnedThreads(4).run([lambda: ran.append(threading.get_ident())])
    assert ran == [threading.get_ident()]
    assert threading.active_count() == before


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_an_error_is_raised_once_all_have_ended(three: PinnedThreads, wrong: int) -> None:
    ended = []

    def call(index: int) -> None:
        if index == wrong:
            raise ZeroDivisionError(str(index))
        threading.Event().wait(0.05)
        ended.append(index)

    with pytest.raises(ZeroDivisionError, match=str(wrong)):
        three.run([lambda index=index: call(index) for index in range(3)])
    assert sorted(ended) == [index for index in range(3) if index != wrong]


@pytest.mark.parametrize("where", ["make_calls", "wait"])
def test_an_interrupt_leaves_no_call_behind(three: PinnedThreads, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    three.run([lambda: None] * 3)
    caller, begun, ended = threading.get_ident(), threading.Event(), []

    def call() -> None:
        begun.set()
        threading.Event().wait(0.05)
        ended.append(threading.get_ident())

    real = module._Task

    class Interrupted(real):
        """One whose caller gets a signal after it has taken a call, or while it waits for the others'."""

    def interrupt(task: real) -> None:
        if threading.get_ident() == caller:
            if where == "make_calls":
                task._left.popleft()
            assert begun.wait(LONG)
            raise KeyboardInterrupt
        real.make_calls(task)

    setattr(Interrupted, where, interrupt)
    tasks = iter([Interrupted])
    monkeypatch.setattr(module, "_Task", lambda calls: next(tasks, real)(calls))
    with pytest.raises(KeyboardInterrupt):
        three.run([call] * 3)
    count = len(ended)
    assert count >= 1
    threading.Event().wait(0.1)
    assert len(ended) == count
    monkeypatch.undo()
    three.run([call] * 3)
    assert len(ended) == count + 3


def test_calls_are_made_also_where_no_thread_takes_them(three: PinnedThreads) -> None:
    """As while the interpreter ends."""
    three.run([lambda: None] * 3)
    three.end_threads()
    made: list[int] = []
    three.run([lambda index=index: made.append(index) for index in range(3)])
    assert made == [0, 1, 2]


def test_a_core_that_is_gone_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {10**6, 10**6 + 1}
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: absent, raising=False)
    made: list[int] = []
    PinnedThreads(2).run([lambda: made.append(1)] * 2)
    assert made == [1, 1]


def test_its_threads_end_with_it() -> None:
    before = set(threading.enumerate())
    own = PinnedThreads(3)
    own.run([lambda: None] * 3)
    threads = set(threading.enumerate()) - before
    assert threads
    del own
    gc.collect()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_file_that_is_replaced_changes_nothing_for_what_was_loaded(tmp_path: Path) -> None:
    live, other = tmp_path / "live.onnx", tmp_path / "other.onnx"
    exported(live)
    exported(other, seed=1)
    model = load(live, "cpu", threads=2)
    chunks = randoms(5, 1, 1, 4)
    expected = load(live, "cpu", threads=1)(np.concatenate(chunks))[0]
    other.replace(live)
    assert not np.allclose(load(live, "cpu", threads=1)(np.concatenate(chunks))[0], expected, atol=1e-3)

    stream, pool = model.stream(), model.pool(3)
    slots = [pool.open() for _ in range(3)]
    with Batcher(model) as server:
        served = server.open()
        for chunk, right in zip(chunks, expected, strict=True):
            for found in (stream(chunk), *pool.step(slots, np.repeat(chunk, 3, 1)).swapaxes(0, 1), served.step(chunk)):
                np.testing.assert_allclose(found.ravel(), right.ravel(), rtol=0, atol=1e-6)
    ((mapped, _),) = model.map([chunks[:, 0, 0]])
    np.testing.assert_allclose(mapped, expected[:, 0], rtol=0, atol=1e-6)
