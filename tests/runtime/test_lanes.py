"""Lanes: calls side by side, of which each ends before the first error is raised."""

from __future__ import annotations

import gc
import threading

import pytest

from lstm_onnx.runtime.lanes import Lanes

LONG = 30.0


def test_calls_are_made_at_the_same_time() -> None:
    meet = threading.Barrier(3)
    threads = set()

    def call() -> None:
        meet.wait(LONG)
        threads.add(threading.get_ident())

    lanes = Lanes(3)
    for _ in range(3):
        lanes.run([call] * 3)
    assert threading.get_ident() in threads
    assert len(threads) == 3


def test_one_call_needs_no_thread() -> None:
    before = threading.active_count()
    ran = []
    Lanes(4).run([lambda: ran.append(threading.get_ident())])
    assert ran == [threading.get_ident()]
    assert threading.active_count() == before


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_an_error_is_raised_once_all_have_ended(wrong: int) -> None:
    ended = []

    def call(index: int) -> None:
        if index == wrong:
            raise ZeroDivisionError(str(index))
        threading.Event().wait(0.05)
        ended.append(index)

    with pytest.raises(ZeroDivisionError, match=str(wrong)):
        Lanes(3).run([lambda index=index: call(index) for index in range(3)])
    assert sorted(ended) == [index for index in range(3) if index != wrong]


def test_calls_are_made_also_where_no_thread_takes_them() -> None:
    """As while the interpreter ends."""
    lanes = Lanes(3)
    lanes.run([lambda: None] * 3)
    assert lanes._others is not None
    lanes._others.shutdown()
    made: list[int] = []
    lanes.run([lambda index=index: made.append(index) for index in range(3)])
    assert made == [0, 1, 2]


def test_its_threads_end_with_it() -> None:
    lanes = Lanes(3)
    lanes.run([lambda: None] * 3)
    own = [thread for thread in threading.enumerate() if thread.name.startswith("lstm-onnx lane")]
    del lanes
    gc.collect()
    for thread in own:
        thread.join(LONG)
        assert not thread.is_alive()
