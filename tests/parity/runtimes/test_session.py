"""A model, its streams and its pools on another engine: the same numbers, and an engine's faults as errors."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.errors import MissingDependencyError, ModelError, RunError
from lstm_onnx.parity.runtimes import engine_of, load_like, load_on, note_of

from .conftest import engine

pytestmark = pytest.mark.sweep(3)

X = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
BAD = np.full((6, 3, 4), 13, np.float32)


@pytest.mark.parametrize("kind", ["OnnxRuntime", "Printing"])
def test_runs_streams_and_pools_give_the_numbers_of_onnxruntime(kind: str, lstm: Path):
    with engine(kind) as process, load_on(process, lstm) as model, lstm_onnx.load(lstm, "cpu") as plain:
        assert process.version == "1.2.3"
        assert engine_of(model) is process
        assert engine_of(plain) is None
        for _ in range(4):  # runs of one shape are bound from the second on
            assert np.array_equal(model(X)[0], plain(X)[0])
        streams = model.stream(batch=3), plain.stream(batch=3)
        for step in X[:, None]:
            assert np.array_equal(*(stream(step) for stream in streams))
        pools = model.pool(slots=2), plain.pool(slots=2)
        slots = [[pool.open(), pool.open()] for pool in pools]
        for step in X[:, None, :2]:
            assert np.array_equal(*(pool.step(both, step) for pool, both in zip(pools, slots, strict=True)))
        with load_like(model, lstm) as another:
            assert engine_of(another) is process


def test_every_run_goes_through_the_engine(lstm: Path):
    with engine("Wrong") as process, load_on(process, lstm) as model, lstm_onnx.load(lstm, "cpu") as plain:
        stream, pool = model.stream(batch=3), model.pool(slots=3)
        slots = [pool.open() for _ in range(3)]
        for _ in range(4):
            stream.reset()
            for slot in slots:
                pool.reset(slot)
            expected = plain(X)[0] + np.float32(1e-3)
            assert np.array_equal(model(X)[0], expected)
            assert np.array_equal(stream(X), expected)
            assert np.array_equal(pool.step(slots, X), expected)


def test_an_engine_that_ends_is_an_error_and_starts_again(lstm: Path):
    with engine("Ending") as process, load_on(process, lstm) as model:
        right = model(X)[0]
        for _ in range(2):
            with pytest.raises(RunError, match=r"Ending failed while running: it ended the process \(SIGABRT\)"):
                model(BAD)
            assert np.array_equal(model(X)[0], right)


def test_what_the_engine_raises_is_the_error(lstm: Path, tmp_path: Path):
    with engine("OnnxRuntime") as process:
        with load_on(process, lstm) as model, pytest.raises(RunError, match=r"OnnxRuntime failed.*said: .*h0"):
            process.run(model.session._number, {"input": X})
        (tmp_path / "no.onnx").write_bytes(b"nothing")
        with pytest.raises(ModelError, match=r"OnnxRuntime cannot open it: said:"):
            process.open(10**6, str(tmp_path / "no.onnx"), [])
    with (
        engine("Silent") as process,
        load_on(process, lstm) as model,
        pytest.raises(RunError, match="no output output"),
    ):
        model(X)


def test_an_engine_that_needs_fixed_sizes_is_given_them_and_it_is_noted(lstm: Path):
    with engine("Fixed") as process, pytest.raises(ModelError, match="Fixed cannot open it: said: axes are open"):
        load_on(process, lstm)
    with engine("Fixed", fixes_sizes=True) as process, load_on(process, lstm) as model:
        assert note_of(model) == "Fixed opens it at one size of each axis only; with named axes: said: axes are open"
        assert model(X)[0].shape == (6, 3, 5)


def test_an_engine_that_runs_at_fixed_sizes_only_is_given_them(lstm: Path):
    with engine("FixedRun", fixes_sizes=True) as process, load_on(process, lstm) as model:
        assert note_of(model) == ""
        assert model(X)[0].shape == (6, 3, 5)
        note = "FixedRun runs it at one size of each axis only; with named axes: FixedRun failed while running: said: "
        assert note_of(model) == f"{note}a size is a symbol"
        with pytest.raises(RunError, match="a size is a symbol"):
            model(np.full_like(X, 13))
    with engine("FixedRun") as process, load_on(process, lstm) as model, pytest.raises(RunError, match="a symbol"):
        model(X)


def test_an_engine_that_is_not_installed_is_named_with_the_way_to_install_it():
    with (
        pytest.raises(
            MissingDependencyError, match=r"Missing cannot be started \(No module named 'engine'\); install it"
        ),
        engine("Missing"),
    ):
        pass


def test_files_that_nobody_uses_are_forgotten(lstm: Path):
    with engine("OnnxRuntime") as process:
        first = load_on(process, lstm)
        number = first.session._number
        del first
        gc.collect()
        assert process.unused == [number]
        with load_on(process, lstm) as model:
            assert not process.unused
            model(X)
        with pytest.raises(RunError, match="failed while running"):
            process.run(number, {"input": X})
