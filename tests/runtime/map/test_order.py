"""The caller's order, within bounds of memory, on as many threads as were said."""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_onnx.errors import RunError
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.map import map as mapping
from lstm_onnx.runtime.map.map import map_sequences
from lstm_onnx.runtime.map.sample import SequenceLayout
from lstm_onnx.spec import ExportOptions

from ..models import exported, model_of, randoms
from .support import FEATURES, assert_alike, drawn


@pytest.mark.parametrize("look_ahead", [1, 2, 3, 16])
def test_no_more_are_held_than_was_said(models: dict[str, Model], look_ahead: int) -> None:
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for sequence in drawn(60):
            read += 1
            yield sequence

    results = map_sequences(models["plain_lengths"], source(), look_ahead=look_ahead, workers=2, batch=4)
    assert read == 0
    most = 0
    for given, _ in enumerate(results):
        most = max(most, read - given)
        assert read - given <= look_ahead
    assert read == 60
    assert most == look_ahead


def test_bytes_bound_what_is_held_where_no_number_was_said(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models["plain_lengths"]
    layout = SequenceLayout.of(model)
    each = layout.sample(randoms(6, FEATURES)).size
    assert each == 4 * (6 * FEATURES + 6 * 5 + 2 * 5)
    monkeypatch.setattr(mapping, "MAX_LOOK_AHEAD_BYTES", 10 * each)
    read = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in range(40):
            read += 1
            yield randoms(6, FEATURES)

    pending = [read - given for given, _ in enumerate(map_sequences(model, source(), batch=2))]
    assert len(pending) == 40
    assert max(pending) <= 10


def test_a_result_that_the_caller_dropped_is_gone(models: dict[str, Model]) -> None:
    results = map_sequences(models["plain_lengths"], drawn(30), batch=4)
    for _ in range(5):
        output, _ = next(results)
        gone = weakref.ref(output)
        del output
        assert gone() is None
    results.close()  # type: ignore[attr-defined]


def test_results_come_while_sequences_are_still_read(models: dict[str, Model]) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield randoms(3, FEATURES)

    results = map_sequences(models["plain_lengths"], endless(), look_ahead=8)
    for _ in range(50):
        next(results)
    assert any(thread.name.startswith("lstm-onnx") for thread in threading.enumerate())
    results.close()  # type: ignore[attr-defined]
    assert list(results) == []


def interrupted(results: Iterator[Any]) -> None:
    for _ in results:
        raise KeyboardInterrupt


def test_a_consumer_that_goes_away_ends_the_threads(models: dict[str, Model]) -> None:
    for _ in map_sequences(models["plain_lengths"], drawn(200), look_ahead=64):
        break
    with pytest.raises(KeyboardInterrupt):
        interrupted(map_sequences(models["plain_lengths"], drawn(50)))
    map_sequences(models["plain_lengths"], drawn(5))  # and one that was never begun has none


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_so_many_threads_as_were_said(models: dict[str, Model], workers: int) -> None:
    results = map_sequences(models["plain_lengths"], drawn(30), workers=workers)
    next(results)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("lstm-onnx")]
    assert len(names) == workers
    assert len(list(results)) == 29


def test_progress_is_told_in_the_callers_thread(models: dict[str, Model]) -> None:
    told: list[tuple[int, int]] = []
    results = map_sequences(
        models["plain_lengths"], drawn(30), progress=lambda done: told.append((done, threading.get_ident())), batch=4
    )
    assert len(list(results)) == 30
    counts = [count for count, _ in told]
    assert counts == sorted(set(counts))
    assert counts[-1] == 30
    assert {thread for _, thread in told} == {threading.get_ident()}


def test_two_maps_at_once_do_not_mix(models: dict[str, Model]) -> None:
    model = models["bidirectional_stack_lengths"]
    one, other = drawn(30, seed=1), drawn(30, seed=2)
    pairs = zip(map_sequences(model, one, batch=4), map_sequences(model, other, batch=4), strict=True)
    for (a, b), x, y in zip(pairs, one, other, strict=True):
        assert_alike(a, model(x))
        assert_alike(b, model(y))


def test_the_calibration_is_short_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    calls: list[int] = []
    real = mapping.measured_cost

    def counted(seconds: Any, length: int) -> Any:
        calls.append(length)
        return real(seconds, length)

    monkeypatch.setattr(mapping, "measured_cost", counted)
    began = time.thread_time()
    assert len(list(map_sequences(model, drawn(70)))) == 70
    assert time.thread_time() - began < 1
    assert len(list(map_sequences(model, drawn(70)))) == 70
    assert len(calls) == 1
    kept = mapping._costs[model]
    assert kept.steps[0][0] == 1
    small = load(model.path, "cpu")
    assert len(list(map_sequences(small, drawn(10)))) == 10
    assert len(list(map_sequences(small, drawn(100), batch=4))) == 100
    assert len(calls) == 1


def test_runs_stay_in_their_thread(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    list(map_sequences(model, drawn(3)))
    session = model.one_thread()
    assert session is not model.session
    assert session.get_session_options().intra_op_num_threads == 1
    list(map_sequences(model, drawn(3)))
    assert model.one_thread() is session
    one = load(model.path, "cpu", threads=1)
    assert one.one_thread() is one.session
    model.close()
    with pytest.raises(RunError, match="is closed"):
        list(map_sequences(model, drawn(3)))


def test_a_program_may_go_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = load("model.onnx", "cpu", threads=2)
    monkeypatch.chdir("/")
    assert model.path == "model.onnx"
    assert model.one_thread().get_session_options().intra_op_num_threads == 1


def test_a_file_that_is_gone_or_changed_does_not_matter(tmp_path: Path) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True))
    other = tmp_path / "other.onnx"
    exported(other, options=ExportOptions(lengths=True), num_layers=2)
    Path(model.path).unlink()
    for result, x in zip(map_sequences(model, drawn(5)), drawn(5), strict=True):
        assert_alike(result, model(x))
    again = load(other, "cpu")
    expected = [again(x) for x in drawn(5)]
    exported(other, options=ExportOptions(lengths=True), num_layers=2, seed=5)  # alike but for its weights
    for result, right in zip(map_sequences(again, drawn(5)), expected, strict=True):
        assert_alike(result, right)
    assert again.one_thread() is again.session
    shutil.rmtree(tmp_path)


def resident() -> float:
    """MiB that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process' memory from Linux's /proc")
def test_memory_does_not_grow_over_20_000_runs_of_varying_shape(tmp_path: Path) -> None:
    model = model_of(tmp_path, options=ExportOptions(lengths=True), input_size=16, hidden_size=32, bidirectional=True)
    rng = np.random.default_rng(0)
    data = randoms(400, 16)

    def some(runs: int) -> Iterator[np.ndarray]:
        for _ in range(runs):
            yield data[: rng.integers(1, 400)]

    def go(runs: int) -> None:
        # One row a run, so that each has a shape of its own; then the shapes of batches.
        for rows, count in ((1, runs), (6, runs)):
            for _ in map_sequences(model, some(count), batch=rows, look_ahead=64, workers=2):
                pass

    go(2000)
    before = resident()
    go(20_000)
    assert resident() - before < 10
