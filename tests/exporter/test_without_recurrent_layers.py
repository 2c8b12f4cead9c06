"""Modules without an nn.LSTM, nn.GRU, nn.RNN or cell: steps written by hand, and parts of larger models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx

pytestmark = pytest.mark.sweep(3)


class Step(nn.Module):
    """A plain recurrence, one step a call; its state is an argument and a result."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(9, 5), nn.Linear(9, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([x, h], 1)
        return torch.log_softmax(self.output(both), 1), torch.tanh(self.hidden(both))


class Average(nn.Module):
    """A running average in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.mean = nn.Linear(4, 3), torch.zeros(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + self.linear(x)
        return self.mean


class Causal(nn.Module):
    """A causal convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2).relu()


def _exported(module: nn.Module, path: Path, example: Any, shapes: Any, **options: Any) -> lstm_onnx.Model:
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, **options)
    report = lstm_onnx.verify(module, path)
    assert report, str(report)
    return lstm_onnx.load(path, "cpu", threads=1)


def _module(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@torch.no_grad()
def test_a_step_whose_state_the_caller_carries(tmp_path: Path) -> None:
    module, shapes = _module(Step), {"x": {0: "batch"}, "h": {0: "batch"}}
    model = _exported(module, tmp_path / "m.onnx", (torch.zeros(2, 4), torch.zeros(2, 5)), shapes)
    x, h = torch.randn(7, 4), torch.randn(7, 5)
    found = model.run({"x": x.numpy(), "h": h.numpy()})
    for name, wanted in zip(("output.0", "output.1"), module(x, h), strict=True):
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_state_in_an_attribute_streams(tmp_path: Path) -> None:
    module = _module(Average)
    model = _exported(module, tmp_path / "m.onnx", torch.randn(2, 4), None)
    stream = model.stream(batch=2)
    for x in torch.randn(6, 2, 4):
        np.testing.assert_allclose(stream(x.numpy()), module(x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_convolution_streams(tmp_path: Path) -> None:
    module, axes = _module(Causal), {"x": {0: "batch", 1: "time"}}
    model = _exported(module, tmp_path / "m.onnx", torch.randn(2, 9, 4), axes, states="explicit")
    x, stream = torch.randn(3, 20, 4), model.stream(batch=3)
    parts = [stream(x[:, start : start + 7].numpy()) for start in range(0, 20, 7)]
    np.testing.assert_allclose(np.concatenate(parts, 1), module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_in_a_smaller_precision(tmp_path: Path, precision: str) -> None:
    module = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    _exported(module, tmp_path / "m.onnx", torch.zeros(2, 32), {"input": {0: "batch"}}, precision=precision)


def test_an_axis_is_found_without_a_name_for_it(tmp_path: Path) -> None:
    result = lstm_onnx.export(nn.Linear(4, 3), tmp_path / "m.onnx", example_inputs=torch.zeros(2, 7, 4))
    assert lstm_onnx.load(result.path, "cpu").run({"input": np.zeros((5, 1, 4), np.float32)})["output"].shape == (
        5,
        1,
        3,
    )


def test_steps_that_do_not_meet_need_no_stream(tmp_path: Path) -> None:
    axes = {"input": {0: "batch", 1: "time"}}
    options = {"example_inputs": torch.zeros(2, 7, 4), "dynamic_shapes": axes, "states": "explicit"}
    lstm_onnx.export(nn.Linear(4, 3), tmp_path / "m.onnx", **options)
    with pytest.raises(lstm_onnx.InputError, match="it has no states: the steps along time are computed one by one"):
        lstm_onnx.load(tmp_path / "m.onnx", "cpu").stream()


def test_layers_that_nothing_depends_on_are_refused(tmp_path: Path) -> None:
    class Unused(Causal):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 3)

    with pytest.raises(lstm_onnx.ExportError, match="no output of the module depends on its recurrent modules"):
        lstm_onnx.export(Unused(), tmp_path / "m.onnx", example_inputs=torch.zeros(2, 7, 4))
