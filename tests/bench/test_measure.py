"""Order, ratios and restored settings; no test asserts how fast anything is."""

from __future__ import annotations

import contextlib
import gc
import os
import threading

import numpy as np
import pytest

from lstm_onnx.bench.measure import (
    Candidate,
    Spread,
    call_once,
    interleaved,
    no_gc,
    pinned,
    ratios,
    turns,
)
from lstm_onnx.errors import InputError
from lstm_onnx.runtime.pool.pinned_threads import allowed_cores


class Clock:
    """Nanoseconds that pass only while a candidate runs."""

    def __init__(self):
        self.now = 0
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now

    def candidate(self, name: str, seconds, **options) -> Candidate:
        def run():
            self.calls.append(name)
            self.now += int((seconds() if callable(seconds) else seconds) * 1e9)

        return Candidate(name, run, **options)


def firsts(calls: list[str]) -> list[str]:
    """Consecutive calls of one candidate as one."""
    return [name for index, name in enumerate(calls) if index == 0 or calls[index - 1] != name]


def test_candidates_take_turns_and_each_round_starts_with_another_one():
    clock = Clock()
    candidates = [clock.candidate(name, 1) for name in "abc"]
    samples = interleaved(candidates, rounds=4, clock=clock)
    assert {name: len(found) for name, found in samples.items()} == {"a": 4, "b": 4, "c": 4}
    assert "".join(clock.calls[-12:]) == "abcbcacababc"


def test_turns():
    assert [turns(3, index) for index in range(4)] == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]


def test_a_short_call_is_repeated_until_a_sample_is_long_enough():
    clock = Clock()
    samples = interleaved([clock.candidate("a", 1e-4)], rounds=2, least=0.002, clock=clock)
    assert samples["a"] == pytest.approx([1e-4, 1e-4])
    assert len(clock.calls) == 4 + 2 * (100 + 20)  # to warm up; for 10 ms before each sample, untimed


def test_warming_up_a_long_call_is_short():
    clock = Clock()
    interleaved([clock.candidate("a", 5)], rounds=1, clock=clock)
    assert len(clock.calls) == 2


def test_a_long_first_call_counts_as_warm_up():
    clock = Clock()
    candidates = [clock.candidate(name, 1) for name in "ab"]
    interleaved(candidates, rounds=1, known={"a": 5.0, "b": 0.1}, clock=clock)
    assert clock.calls == ["b", "a", "b"]


def test_the_time_limit_ends_the_rounds_but_three_are_run():
    clock = Clock()
    assert len(interleaved([clock.candidate("a", 1)], rounds=50, seconds=1e-3, clock=clock)["a"]) == 3
    assert len(interleaved([clock.candidate("a", 1)], rounds=2, seconds=1e-3, clock=clock)["a"]) == 2
    assert len(interleaved([clock.candidate("a", 1)], rounds=50, seconds=10, clock=clock)["a"]) == 10


def test_rests_before_each_sample():
    clock, rests = Clock(), []
    options = {"rounds": 3, "clock": clock, "sleep": rests.append, "used": lambda: 0.0}
    interleaved([clock.candidate(name, 1) for name in "ab"], settle=0.03, **options)
    assert rests == [0.03] * 6
    interleaved([clock.candidate("a", 1)], **options)
    assert len(rests) == 6


@pytest.mark.parametrize(("spins", "expected"), [(0.0, 1), (0.04, 3), (0.2, 11), (100.0, 40)])
def test_rests_until_no_thread_spins_up_to_a_limit(spins: float, expected: int):
    rested = []
    interleaved(
        [(clock := Clock()).candidate("a", 1)],
        rounds=1,
        settle=0.02,
        clock=clock,
        sleep=rested.append,
        used=lambda: min(sum(rested), spins),  # one thread does, from the beginning on
    )
    assert len(rested) == expected


def test_settings_of_a_candidate_apply_to_it_alone():
    clock, inside = Clock(), []

    @contextlib.contextmanager
    def around():
        inside.append("a")
        yield
        inside.pop()

    def seconds():
        assert inside == ["a"]
        return 1

    def other():
        assert inside == []
        return 1

    interleaved([clock.candidate("a", seconds, around=around), clock.candidate("b", other)], rounds=2, clock=clock)
    assert inside == []


def test_spread_is_the_median_and_the_quartiles():
    assert Spread.of([4, 1, 3, 2, 5]) == Spread(3, 2, 4)
    assert Spread.of([7]) == Spread(7, 7, 7)
    assert Spread.of([1, 2]) == Spread(1.5, 1.25, 1.75)


def test_ratios_are_taken_within_rounds_not_of_medians():
    # The machine is three times as slow in two rounds; the ratio is 2 in each.
    baseline = [1.0, 3.0, 1.0, 3.0, 1.0]
    assert ratios([2 * value for value in baseline], baseline) == Spread(2, 2, 2)
    assert ratios([1, 1, 10], [1, 10, 10]) == Spread(1, 0.55, 1)
    with pytest.raises(ValueError, match="zip"):
        ratios([1, 2], [1])


def test_garbage_collection_is_off_and_then_restored():
    assert gc.isenabled()
    with no_gc():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_gc():
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_every_thread_is_pinned_and_then_restored():
    allowed = os.sched_getaffinity(0)
    begin, end = threading.Event(), threading.Event()
    old = threading.Thread(target=end.wait)
    new = threading.Thread(target=lambda: (begin.set(), end.wait()))
    old.start()
    try:
        with contextlib.suppress(ZeroDivisionError), pinned([min(allowed)]) as done:
            assert done
            new.start()
            begin.wait()
            for task in (0, old.native_id, new.native_id):
                assert os.sched_getaffinity(task) == {min(allowed)}
            assert allowed_cores() == [min(allowed)]
            raise ZeroDivisionError
        for task in (0, old.native_id, new.native_id):
            assert os.sched_getaffinity(task) == allowed
    finally:
        end.set()
        old.join()
        new.join()


def test_nothing_is_pinned_on_a_system_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    with pinned([0]) as done:
        assert not done
    assert allowed_cores() == list(range(os.cpu_count() or 1))


def given(name: str, value, **options) -> Candidate:
    return Candidate(name, lambda: value, output=np.asarray, **options)


def test_outputs_that_differ_from_the_baseline_are_reported():
    right, wrong = np.ones(3), np.array([1, 1, 1.5])
    calls = call_once([given("a", right), given("b", right + 1e-6), given("c", wrong)], "a", 1e-3)
    assert [candidate.name for candidate in calls.working] == ["a", "b", "c"]
    assert calls.disagreements == ["the output of c differs from that of a by 0.5"]
    nan = call_once([given("a", right), given("b", right * np.nan)], "a", 1e-3)
    assert len(nan.disagreements) == 1
    shape = call_once([given("a", right), given("b", right[:2])], "a", 1e-3)
    assert shape.disagreements == ["the output of b has shape (2,), that of a (3,)"]
    assert call_once([given("a", 100 * right), given("b", 100 * right + 0.05)], "a", 1e-3).disagreements == []


def test_a_failing_candidate_is_left_out_with_the_reason():
    def fails(error):
        def run():
            raise error

        return run

    bad = [
        Candidate("b", fails(InputError("no batch"))),
        Candidate("c", fails(RuntimeError("\n first\n second")), errors=(Exception,)),
        Candidate("d", fails(KeyError()), errors=(Exception,)),
    ]
    calls = call_once([given("a", np.ones(1)), *bad], "a", 1e-3)
    assert [candidate.name for candidate in calls.working] == ["a"]
    assert calls.failed == {"b": "InputError: no batch", "c": "RuntimeError: first", "d": "KeyError: no message"}
    with pytest.raises(RuntimeError):  # a bug of ours is not left out
        call_once([Candidate("e", fails(RuntimeError()))], "e", 1e-3)


def test_candidates_without_output_are_not_compared():
    calls = call_once([Candidate("a", lambda: None), given("b", np.ones(1))], "a", 1e-3)
    assert calls.disagreements == []
    assert calls.failed == {}
