"""Drawn int8 files: no false alarm, every mutant rejected, errors that do not grow, and NaN that stays NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx.quantization import quantize
from lstm_onnx.quantization.proof import ROUNDINGS
from tests.quantization.drawn import Net, draw, proven

QUICK = (0, 1, 3, 7, 13)
"""A module, two operators and two bare LSTMs, one of which is projected."""
SWEEP = range(500)


def require_proven(seed: int, folder: Path) -> None:
    drawn = draw(seed)
    found = proven(drawn, folder)
    for case in found.cases:
        assert case.passed, (drawn, case)
        assert all(tensor.ratio < ROUNDINGS / 4 for tensor in case.tensors), (drawn, case)
    assert {"stored", "layers"} <= {case.kind for case in found.cases}, drawn
    assert {mutant.outcome for mutant in found.mutants} == {"rejected"}, (drawn, found.mutants)


@pytest.mark.sweep(3)
@pytest.mark.parametrize("seed", QUICK)
def test_a_drawn_file_passes_and_its_mutants_do_not(seed: int, tmp_path: Path) -> None:
    require_proven(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SWEEP)
def test_500_drawn_files_pass_and_their_mutants_do_not(seed: int, tmp_path: Path) -> None:
    require_proven(seed, tmp_path)


def test_every_cell_and_form_is_drawn() -> None:
    names = [draw(seed).name for seed in range(500)]
    for word in ("module LSTM", "module GRU", "module RNN", "proj_size", "tokens True", "packed True", "explicit True"):
        assert sum(word in name for name in names) >= 10, word
    for word in ("op_type='LSTM'", "op_type='GRU'", "op_type='RNN'", "reverse=True", "lengths=True", "directions=2"):
        assert sum(word in name for name in names) >= 10, word


def errors_over_time(seed: int, folder: Path, steps: int) -> np.ndarray:
    """The root mean square difference of an int8 bare LSTM's output from float32's, step by step."""
    rng = np.random.default_rng(seed)
    hidden, layers = int(rng.integers(16, 129)), int(rng.integers(1, 3))
    torch.manual_seed(seed)
    module = torch.nn.LSTM(24, hidden, num_layers=layers)
    gain = float(np.exp(rng.uniform(np.log(0.5), np.log(2))))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(gain)
    lstm_onnx.export(module, folder / "m.onnx")
    quantize(folder / "m.onnx", folder / "q.onnx")
    feeds = {"input": rng.standard_normal((steps, 4, 24)).astype(np.float32)}
    full, int8 = (
        lstm_onnx.load(folder / name, provider="cpu", threads=1).run(feeds)["output"] for name in ("m.onnx", "q.onnx")
    )
    return np.sqrt(np.square(full.astype(np.float64) - int8).mean(axis=(1, 2)))


@pytest.mark.parametrize("seed", [0, *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 40)]])
def test_errors_do_not_grow_after_100_steps(seed: int, tmp_path: Path) -> None:
    error = errors_over_time(seed, tmp_path, 1000)
    windows = error[100:].reshape(9, 100)
    assert windows.max(axis=1).max() < 2 * windows[0].max()
    assert windows[4:].mean() < 1.2 * windows[:4].mean()


@pytest.mark.sweep(3)
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_carried_through_a_module(number: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net("LSTM", False, True, 1.0, input_size=20, hidden_size=32, bidirectional=False).eval()
    x, lengths = torch.randn(3, 6, 20), torch.tensor([6, 6, 3])
    shapes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    path = tmp_path / "q.onnx"
    inputs = {"x": x, "lengths": lengths}
    lstm_onnx.export(net, path, example_inputs=inputs, dynamic_shapes=shapes, precision="int8", check=False)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    x = x.clone()
    x[0, 2, 5] = number
    x[2, 4, 5] = number  # past the end of its sequence
    output = next(iter(model.run({"x": x, "lengths": lengths}).values())).numpy()
    assert np.isnan(output[0, 2:]).all()
    assert np.isfinite(output[0, :2]).all()
    assert np.isfinite(output[1:]).all()
