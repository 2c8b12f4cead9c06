"""Sequences that take less time than passing them to another thread run in the caller's."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from lstm_onnx.errors import InputError, RunError
from lstm_onnx.runtime import Model
from lstm_onnx.runtime.map import map as mapping
from lstm_onnx.runtime.map.batch_planner import Cost
from lstm_onnx.runtime.map.map import map_sequences

from .support import drawn

CALIBRATED = Cost(1.0, ((1, 1.0), (4, 2.0)))


def workers() -> int:
    return sum(thread.name.startswith("lstm-onnx map") for thread in threading.enumerate())


@pytest.fixture
def model(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    """A model whose cost has been measured."""
    model = models["plain_lengths"]
    mapping._costs[model] = CALIBRATED
    yield model
    del mapping._costs[model]


@pytest.mark.parametrize(("limit", "count"), [(0.0, 1), (1e9, 0)])
def test_the_same_results_with_threads_and_without(
    model: Model, monkeypatch: pytest.MonkeyPatch, limit: float, count: int
) -> None:
    sequences = drawn(300)
    expected = list(map_sequences(model, sequences, workers=1, look_ahead=64, batch=4))
    monkeypatch.setattr(mapping, "HERE_SECONDS", limit)
    found, threads = [], set()
    for result in map_sequences(model, sequences, workers=1, look_ahead=64):
        found.append(result)
        threads.add(workers())
    assert threads == {count}
    for (output, states), (right, right_states) in zip(found, expected, strict=True):
        for one, other in zip((output, *states), (right, *right_states), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_without_a_measured_cost_they_run_in_threads(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "HERE_SECONDS", 1e9)
    results = map_sequences(models["plain_lengths"], drawn(20), workers=1, batch=4)
    next(results)
    assert workers() == 1
    list(results)


def test_progress_and_what_fails(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "HERE_SECONDS", 1e9)
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


def test_the_cost_of_a_plan() -> None:
    assert CALIBRATED.of([5, 4, 3], [(0, 1), (2,)]) == pytest.approx(1 + 5 * (1 + 1 / 3) + 1 + 3)
