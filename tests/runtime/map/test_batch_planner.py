"""Which sequences share a run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_onnx.runtime.map.batch_planner import CPU_COST, CUDA_COST, Cost, measured_cost, monotonic, plan
from lstm_onnx.runtime.tuning import CALIBRATION_ROWS

LENGTHS = st.lists(st.integers(1, 400), max_size=40)


def priced(runs: list[tuple[int, ...]], lengths: list[int], cost: Cost) -> float:
    return sum(cost.call + max(lengths[at] for at in run) * cost.step(len(run)) for run in runs)


@given(lengths=LENGTHS, most=st.integers(1, 9), workers=st.integers(1, 4), kinds=st.integers(1, 3))
def test_every_sequence_is_in_one_run_and_rules_hold(lengths: list[int], most: int, workers: int, kinds: int) -> None:
    keys = [index % kinds for index in range(len(lengths))]
    runs = plan(lengths, keys, CPU_COST, most, workers)
    assert sorted(at for run in runs for at in run) == list(range(len(lengths)))
    for run in runs:
        assert 1 <= len(run) <= min(most, -(-len(lengths) // workers))
        assert len({keys[at] for at in run}) == 1
        assert [lengths[at] for at in run] == sorted((lengths[at] for at in run), reverse=True)
    prices = [priced([run], lengths, CPU_COST) for run in runs]
    assert prices == sorted(prices, reverse=True)


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=7), most=st.integers(1, 4))
def test_no_other_cut_of_the_sorted_sequences_costs_less(lengths: list[int], most: int) -> None:
    cost = Cost(3.0, ((1, 2.0), (2, 2.5), (4, 4.5)))
    ordered = sorted(lengths, reverse=True)
    cheapest = min(
        priced(cut, ordered, cost)
        for mask in range(2 ** (len(ordered) - 1))
        if max(map(len, cut := cuts(len(ordered), mask))) <= most
    )
    assert priced(plan(lengths, [0] * len(lengths), cost, most), lengths, cost) == pytest.approx(cheapest)


def cuts(count: int, mask: int) -> list[tuple[int, ...]]:
    parts = [[0]]
    for at in range(1, count):
        if mask >> (at - 1) & 1:
            parts.append([])
        parts[-1].append(at)
    return [tuple(part) for part in parts]


def test_equal_lengths_fill_runs_and_a_long_one_is_alone() -> None:
    assert plan([5] * 6, [0] * 6, CPU_COST, 3) == [(0, 1, 2), (3, 4, 5)]
    assert plan([5, 400, 5, 5], [0] * 4, CPU_COST, 4) == [(1,), (0, 2, 3)]
    assert plan([], [], CPU_COST, 4) == []


def test_each_worker_gets_some_of_a_few() -> None:
    assert [len(run) for run in plan([9] * 4, [0] * 4, CPU_COST, 32, workers=2)] == [2, 2]
    assert len(plan([9] * 3, [0] * 3, CPU_COST, 32, workers=8)) == 3


def test_padding_wastes_little_of_many() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(4, 1, 512), 2, 400).astype(int).tolist()
    runs = plan(lengths, [0] * 512, CPU_COST, 8, 2)
    padded = sum(max(lengths[at] for at in run) * len(run) for run in runs)
    assert padded < 1.1 * sum(lengths)
    assert len(runs) < 512 / 5
    # On a GPU a run costs about the same for a few rows as for many, so more padding is cheaper than more runs.
    assert len(plan(lengths, [0] * 512, CUDA_COST, 64)) < 20


@pytest.mark.parametrize(("rows", "step"), [(1, 2.0), (2, 3.0), (3, 4.0), (4, 5.0), (8, 9.0)])
def test_a_cost_is_linear_between_and_behind_what_was_measured(rows: int, step: float) -> None:
    assert Cost(0.0, ((1, 2.0), (2, 3.0), (4, 5.0))).step(rows) == pytest.approx(step)


def test_the_cost_of_one_size_alone_and_the_best_size() -> None:
    assert Cost(0.0, ((1, 2.0),)).step(3) == 6.0
    assert Cost(0.0, ((1, 2.0),)).best == 1
    assert Cost(0.0, ((1, 2.0), (2, 3.0), (4, 4.0), (8, 7.9), (16, 40.0))).best == 4


def test_more_rows_never_cost_less() -> None:
    assert monotonic([(1, 2.0), (2, 1.5), (4, 3.0), (8, 2.5)]) == ((1, 1.5), (2, 1.5), (4, 2.5), (8, 2.5))


def test_a_calibration_ends_where_more_rows_do_not_pay() -> None:
    tried: list[int] = []

    def seconds(rows: int) -> float:
        tried.append(rows)
        return 1e-3 * max(rows, 4) * 10

    cost = measured_cost(seconds, 10)
    assert set(tried) == {1, 2, 4, 6}
    assert cost.best == 4
    assert [step for _, step in cost.steps] == pytest.approx([4e-3, 4e-3, 4e-3, 6e-3])


def test_a_calibration_tries_all_sizes_and_keeps_the_least() -> None:
    taken = {rows: iter([9.0, 5.0, 1e-6, 2e-6, 3e-6]) for rows in CALIBRATION_ROWS}
    cost = measured_cost(lambda rows: next(taken[rows]) * 1e-3, 1, budget=1e9)
    assert [rows for rows, _ in cost.steps] == list(CALIBRATION_ROWS)
    assert [step for _, step in cost.steps] == pytest.approx([1e-9] * len(CALIBRATION_ROWS))


def test_a_calibration_of_a_slow_model_ends_in_time() -> None:
    tried: list[int] = []

    def seconds(rows: int) -> float:
        tried.append(rows)
        return 0.3

    assert measured_cost(seconds, 10).best == 1
    assert tried == [1, 1]
