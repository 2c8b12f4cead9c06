"""A NaN or an infinity in an input: a warning where ONNX Runtime's results would hide it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.runtime import Model, load
from lstm_onnx.runtime.batcher.batcher import Batcher
from lstm_onnx.runtime.non_finite_inputs import is_finite

TIME, INPUTS = 5, 3


class Recurrent(nn.Module):
    """One recurrent layer of any kind, and a linear one."""

    def __init__(self, layer: type[nn.RNNBase], **arguments: Any) -> None:
        super().__init__()
        self.layer = layer(INPUTS, 4, batch_first=True, **arguments)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("nan") / "model.onnx"
    torch.manual_seed(0)
    lstm_onnx.export(nn.LSTM(INPUTS, 4), path, lengths=True)
    return load(path, "cpu")


def sequence(*wrong: float, rows: int = 1) -> np.ndarray:
    """A sequence, at one time step of which the first features are these."""
    x = np.random.default_rng(0).standard_normal((TIME, rows, INPUTS), np.float32)
    x[0, 0, 0] = 3e38
    x[2, 0, : len(wrong)] = wrong
    return x


def batcher_step(model: Model, x: np.ndarray) -> None:
    with Batcher(model) as batcher:
        batcher.open().step(x[:, 0])


WAYS: dict[str, Callable[[Model, np.ndarray], object]] = {
    "call": lambda model, x: model(x),
    "run": lambda model, x: model.run({"input": x}),
    "stream": lambda model, x: model.stream()(x),
    "pool": lambda model, x: (pool := model.pool(2)).step([pool.open()], x),
    "batcher": batcher_step,
    "map": lambda model, x: list(model.map([x[:, 0]] * 3)),
    "map in batches": lambda model, x: list(model.map([x[:3, 0], x[:, 0], x[:, 0]], batch=3, workers=1)),
}


@pytest.mark.parametrize("wrong", [(np.nan,), (-np.inf, -np.inf)], ids=["NaN", "the logarithm of silence"])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_run_warns(model: Model, way: str, wrong: tuple[float, ...]) -> None:
    with pytest.warns(RuntimeWarning, match="model.onnx: input has a NaN or an infinity; where PyTorch's") as caught:
        WAYS[way](model, sequence(*wrong))
    assert way in ("map", "map in batches") or caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WAYS[way](model, sequence())


@pytest.mark.filterwarnings("ignore:.*has a NaN")
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_others_are_answered_as_ever(model: Model, wrong: float) -> None:
    """The rows beside it in a pool, a Batcher and a map, and the next stream in its slot."""
    x = np.random.default_rng(1).standard_normal((TIME, 4, INPUTS), np.float32)
    changed = x.copy()
    changed[2, 1] = wrong
    others = [0, 2, 3]

    def pooled(rows: np.ndarray) -> list[np.ndarray]:
        pool = model.pool(4)
        slots = [pool.open() for _ in range(4)]
        found = [pool.step(slots, rows[step : step + 1])[0][others] for step in range(TIME)]
        pool.close(slots[1])
        return [*found, pool.step([pool.open()], x[:1, :1])]

    def batched(rows: np.ndarray) -> list[np.ndarray]:
        with Batcher(model) as batcher, ThreadPoolExecutor(4) as threads:
            streams = [batcher.open() for _ in range(4)]
            found = [
                list(threads.map(lambda row, step=step: streams[row].step(rows[step : step + 1, row]), range(4)))
                for step in range(TIME)
            ]
            return [step[row] for step in found for row in others]

    def mapped(rows: np.ndarray) -> list[np.ndarray]:
        found = [y for y, _ in model.map(list(rows.swapaxes(0, 1)), batch=4)]
        return [found[row] for row in others]

    for way in (pooled, batched, mapped):
        for one, other in zip(way(changed), way(x), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_bound_steps_warn_as_well(model: Model) -> None:
    stream, x = model.stream(), sequence(np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            stream(x[:1])
            model.run({"input": x[:1]})
    before = stream.state
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="input has a NaN"):
            stream(x[2:3])
        with pytest.raises(RuntimeWarning, match="input has a NaN"):
            model.run({"input": x[2:3]})
    for name, array in stream.state.items():
        np.testing.assert_array_equal(array, before[name])


def test_a_nan_in_a_state_counts(model: Model) -> None:
    state = np.zeros((1, 1, 4), np.float32)
    with pytest.warns(RuntimeWarning, match="c0 has a NaN"):
        model(sequence(), (state, state + np.nan))
    with warnings.catch_warnings():  # such as the largest number so far, before there is one
        warnings.simplefilter("error")
        model(sequence(), (state, state - np.inf))


def test_a_nan_in_a_state_that_is_set_counts(model: Model) -> None:
    """Steps of a shape that is bound look at their inputs alone."""
    stream, pool = model.stream(), model.pool(1)
    slot, x = pool.open(), sequence()
    for _ in range(3):
        stream(x)
        pool.step([slot], x)
    state = stream.state
    state["h0"] += np.nan
    with pytest.warns(RuntimeWarning, match="h0 has a NaN"):
        stream.state = state
    with pytest.warns(RuntimeWarning, match="h0 has a NaN"):
        pool.set_state(slot, state)


def test_padding_does_not_count(model: Model) -> None:
    x = sequence(np.nan, rows=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x, lengths=np.array([2, 5]))
    with pytest.warns(RuntimeWarning, match="input has a NaN"):
        model(x, lengths=np.array([3, 5]))


def test_lengths_that_do_not_fit_meet_their_own_error(model: Model) -> None:
    for run in (model.run, model.stream(batch=2).run):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(lstm_onnx.InputError, match="lengths has shape"):
                run({"input": sequence(np.nan, rows=2), "lengths": np.array([5, 5, 5])})


@pytest.mark.sweep(3)
@pytest.mark.parametrize("wrong", [(np.nan,), (-np.inf, -np.inf, -np.inf)], ids=["NaN", "infinities"])
@pytest.mark.parametrize(
    ("layer", "arguments"),
    [(nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {"nonlinearity": "relu"}), (nn.LSTM, {"proj_size": 2})],
    ids=["LSTM", "GRU", "RNN", "projected"],
)
def test_what_is_not_finite_shows_or_is_told(
    tmp_path: Path, layer: type[nn.RNNBase], arguments: dict[str, Any], wrong: tuple[float, ...]
) -> None:
    if "proj_size" in arguments:
        module: nn.Module = nn.LSTM(INPUTS, 4, batch_first=True, **arguments)
        lstm_onnx.export(module, tmp_path / "model.onnx")
    else:
        module = Recurrent(layer, **arguments)
        lstm_onnx.export(module, tmp_path / "model.onnx", example_inputs=(torch.zeros(2, TIME, INPUTS),))
    x = sequence(*wrong).swapaxes(0, 1)[:, 1:].copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load(tmp_path / "model.onnx", "cpu")
        (name,) = [name for name in model.inputs if name not in model.states]
        found = next(iter(model.run({name: x}).values()))
        with torch.no_grad():
            right = module(torch.from_numpy(x))
    right = (right[0] if isinstance(right, tuple) else right).numpy()
    assert np.isnan(right[0, 1:]).all()
    shows = bool(np.isnan(found[0, 1:]).all())
    assert shows != any("has a NaN" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_large_numbers_are_finite(dtype: str) -> None:
    largest = np.finfo(dtype).max
    array = np.array([[0, largest, -largest, largest]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_finite(array)
        for wrong in (np.nan, np.inf, -np.inf):
            assert not is_finite(np.where(array == 0, wrong, array).astype(dtype).T)
        assert is_finite(np.array([1, 2]))
        assert is_finite(np.array(["nan"], object))
