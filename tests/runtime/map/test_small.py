"""Small sequences run in larger batches, so that a run takes longer than the Python code between two runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.map import map as mapping
from lstm_onnx.runtime.map.batch_planner import Cost, in_order
from lstm_onnx.runtime.map.map import map_sequences

from .support import drawn

CALIBRATED = Cost(1.0, ((1, 1.0), (4, 2.0)))


@pytest.fixture
def model(models: dict[str, Model]) -> Iterator[Model]:
    """A model whose cost has been measured."""
    model = models["plain_lengths"]
    mapping._costs[model] = CALIBRATED
    yield model
    del mapping._costs[model]


def counted(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each run."""
    rows: list[int] = []
    session = model.one_thread()

    class Counting:
        def run(self, names: list[str], feeds: dict[str, np.ndarray], options: object) -> object:
            rows.append(feeds["input"].shape[1])
            return session.run(names, feeds, options)

    monkeypatch.setattr(model, "one_thread", Counting)
    return rows


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 4), (1e9, 150)])
def test_the_same_results_with_few_rows_and_with_many(
    model: Model, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int
) -> None:
    sequences = drawn(300)
    expected = list(map_sequences(model, sequences, workers=1, look_ahead=64, batch=4))
    monkeypatch.setattr(mapping, "RUN_SECONDS", seconds)
    rows = counted(model, monkeypatch)
    found = list(map_sequences(model, sequences, workers=2))
    assert (sum(rows), max(rows)) == (300, most)  # no more than leaves a run for each worker
    for (output, states), (right, right_states) in zip(found, expected, strict=True):
        for one, other in zip((output, *states), (right, *right_states), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_without_a_measured_cost_rows_are_as_said(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "RUN_SECONDS", 1e9)
    model = models["plain_lengths"]
    rows = counted(model, monkeypatch)
    assert len(list(map_sequences(model, drawn(20), workers=1, batch=4))) == 20
    assert max(rows) == 4


def test_progress_and_what_fails(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "RUN_SECONDS", 1e9)
    done: list[int] = []
    list(map_sequences(model, drawn(100), look_ahead=50, progress=done.append))
    assert done[-1] == 100
    assert done == sorted(done)
    wrong = [*drawn(70), np.zeros((3, 5), np.float32)]
    found = []
    with pytest.raises(InputError, match=r"^sequence 70: input has shape"):
        found.extend(map_sequences(model, wrong, look_ahead=16))
    assert len(found) == 70

    def fails(*_: object) -> None:
        raise RunError("no run")

    monkeypatch.setattr(mapping, "call", fails)
    with pytest.raises(RunError, match=r"^sequence 0: no run"):
        list(map_sequences(model, drawn(70)))


def test_batches_in_order_of_length() -> None:
    assert in_order([3, 9, 5, 9, 1], ["a", "a", "b", "a", "a"], 2) == [(1, 3), (0, 4), (2,)]


def test_the_cost_of_a_row() -> None:
    assert (CALIBRATED.row, CALIBRATED.best) == (0.5, 4)


@pytest.mark.parametrize(("seconds", "count", "threads"), [(1e9, 100, 0), (0.0, 100, 2), (0.0, 1, 0)])
def test_what_takes_less_than_threads_runs_in_the_callers(
    model: Model, monkeypatch: pytest.MonkeyPatch, seconds: float, count: int, threads: int
) -> None:
    monkeypatch.setattr(mapping, "THREADS_SECONDS", seconds)
    results = map_sequences(model, [np.zeros((5, 4), np.float32)] * count, workers=2)
    next(results)
    assert sum(thread.name.startswith("lstm-onnx map") for thread in threading.enumerate()) == threads
    assert len(list(results)) == count - 1
