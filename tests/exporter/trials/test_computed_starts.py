"""Streams of modules whose recurrent parts start from what is computed of inputs: no state is added for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import InputError

pytestmark = pytest.mark.sweep(3)

AXES = {"x": {0: "batch", 1: "time"}}


class Started(nn.Module):
    """An LSTM that starts from the first step, and a GRU from a speaker; what is left out starts from zeros."""

    def __init__(self, first: bool = True, speaker: bool = True) -> None:
        super().__init__()
        self.first, self.speaker = first, speaker
        self.lstm = nn.LSTM(3, 3, batch_first=True)
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        start = x[None, :, 0]
        y = self.lstm(x, (start, start) if self.first else None)[0]
        found: Tensor = self.gru(y, speaker[None].tanh() if self.speaker else None)[0]
        return found


class StartsFromMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        start = x.mean(1)[None]
        y: Tensor = self.lstm(x, (start, start))[0]
        return y


@pytest.mark.parametrize(("first", "speaker"), [(True, True), (True, False), (False, True)])
def test_computed_starts_are_those_of_the_first_step(first: bool, speaker: bool, tmp_path: Path) -> None:
    module = Started(first, speaker).eval()
    inputs = {"x": torch.randn(2, 6, 3), "speaker": torch.randn(2, 4)}
    shapes = {**AXES, "speaker": {0: "batch"}}
    path = tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=inputs, dynamic_shapes=shapes, states="explicit")
    x, named = torch.randn(1, 11, 3), torch.randn(1, 4)
    with torch.no_grad():
        whole = module(x, named).numpy()
    with lstm_onnx.load(path, provider="cpu", threads=1) as model:
        stream, parts = model.stream(), []
        for part in x.split([1, 4, 1, 5], 1):
            state = stream.state
            stream = model.stream()
            stream.state = state
            parts.append(stream.run({"x": part.numpy(), "speaker": named.numpy()})["output"])
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-5)


def test_a_start_of_all_steps_is_refused_with_its_node(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    x = torch.randn(2, 5, 3)
    lstm_onnx.export(StartsFromMean(), path, example_inputs=x, dynamic_shapes=AXES, states="explicit")
    with pytest.raises(InputError, match="computes mean over all steps"):
        lstm_onnx.load(path, provider="cpu", threads=1).stream()


def test_explicit_states_that_there_are_not_are_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    x, axes = torch.randn(2, 5, 3), {"x": {0: "batch"}}
    lstm_onnx.export(StartsFromMean(), path, example_inputs=x, dynamic_shapes=axes, states="explicit")
    with pytest.raises(
        InputError, match=r"added no states: the initial states of .* are computed from inputs; run whole"
    ):
        lstm_onnx.load(path, provider="cpu", threads=1).stream()


class OfSomeRows(nn.Module):
    """An LSTM of the rows that a mask chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:2], 4).index_put((mask,), self.lstm(x[mask])[0])


def test_rows_that_numbers_choose_have_no_states(tmp_path: Path) -> None:
    path, module = tmp_path / "m.onnx", OfSomeRows().eval()
    axes = {"x": {0: "batch", 1: "time"}, "mask": {0: "batch"}}
    mask = torch.tensor([True, False, True])
    result = lstm_onnx.export(
        module, path, example_inputs=(torch.randn(3, 5, 3), mask), dynamic_shapes=axes, states="explicit"
    )
    assert result.states == {}
    model, x = lstm_onnx.load(path, provider="cpu", threads=1), torch.randn(3, 6, 3)
    outputs = model.run({"x": x.numpy(), "mask": ~mask.numpy()})["output"]
    np.testing.assert_allclose(outputs, module(x, ~mask).detach().numpy(), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="added no states: lstm runs on rows that the inputs' numbers choose"):
        model.stream()


def test_a_module_without_recurrent_layers_has_no_states(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lstm_onnx.export(nn.Linear(3, 4), path, example_inputs=torch.randn(2, 3), dynamic_shapes={}, states="explicit")
    with pytest.raises(InputError, match="added no states: it has no recurrent layer, and no Python loop"):
        lstm_onnx.load(path, provider="cpu", threads=1).stream()
