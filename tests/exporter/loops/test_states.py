"""What a loop carries as explicit states: named inputs and outputs, and a file that streams."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx

from .test_files import made
from .zoo import ZOO, signal

pytestmark = pytest.mark.sweep(18)


def explicit(name: str, path: Path) -> tuple[torch.nn.Module, lstm_onnx.ExportResult]:
    module = made(ZOO[name])
    example, axes = ZOO[name].inputs(2, 5), tuple(ZOO[name].axes)
    return module, lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=axes, states="explicit")


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("OverLSTMCell", {"cell.h0": "cell.hn", "cell.c0": "cell.cn"}),
        ("PeepholeLSTM", {"lstm.h0": "lstm.hn", "lstm.c0": "lstm.cn"}),
        ("NormalizedLSTM", {"loop.0.h0": "loop.0.hn", "loop.1.h0": "loop.1.hn"}),
    ],
)
def test_a_stream_equals_the_whole_sequence(name: str, states: dict[str, str], tmp_path: Path) -> None:
    module, _ = explicit(name, tmp_path / "a.onnx")
    model = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1)
    assert model.states == states
    (x,) = signal(3, 11)
    with torch.no_grad():
        wanted = module(x)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    stream = model.stream(batch=3)
    first = next(iter(model.outputs))
    for cuts in ((0, 4, 5, 11), (0, 1, 11)):
        stream.reset()
        pieces = [stream.run({"x": x[:, a:b].numpy()})[first] for a, b in itertools.pairwise(cuts)]
        np.testing.assert_allclose(np.concatenate(pieces, 1), wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_the_one_state_of_a_loop_has_its_name_and_effect(tmp_path: Path) -> None:
    explicit("MinimalGRU", tmp_path / "a.onnx")
    model = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1)
    assert model.states == {"loop.h0": "loop.hn"}
    x = signal(1, 4)[0].numpy()
    zeros = model.run({"x": x})["output"]
    ones = model.run({"x": x, "loop.h0": np.ones((1, 4), np.float32)})["output"]
    assert np.abs(zeros - ones).max() > 0.01


def test_states_that_are_computed_stay_internal(tmp_path: Path) -> None:
    _, result = explicit("TutorialSeq2Seq", tmp_path / "a.onnx")
    assert any("starts from states that the model computes" in note for note in result.notes)


def test_a_loop_that_compares_its_step_with_lengths_streams(tmp_path: Path) -> None:
    module, _ = explicit("MaskedSteps", tmp_path / "a.onnx")
    stream = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1).stream(batch=2)
    x, lengths = torch.randn(2, 11, 3), torch.tensor([11, 4])
    chunks = [stream.run({"x": x[:, a:b], "lengths": lengths})["output"] for a, b in ((0, 1), (1, 6), (6, 11))]
    np.testing.assert_allclose(torch.cat(chunks, 1), module(x, lengths).detach(), rtol=1e-5, atol=1e-6)


class OverSteps(nn.Module):
    """A cell of its own over the steps of `x`, from zeros that `start` makes like `x`."""

    def __init__(self, start: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.start, self.update, self.recurrent = start, nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(torch.zeros(x.shape[0], 4, dtype=torch.float64), x)
        for t in range(x.shape[1]):
            h = torch.tanh(self.update(x[:, t]) + self.recurrent(h) * h)
        return h


@pytest.mark.parametrize("start", [Tensor.type_as, Tensor.to, lambda zeros, x: zeros.to(x.device, x.dtype)])
def test_zeros_that_are_converted_are_a_state(start: Callable[[Tensor, Tensor], Tensor], tmp_path: Path) -> None:
    module = OverSteps(start).eval()
    path = tmp_path / "a.onnx"
    result = lstm_onnx.export(module, path, example_inputs=torch.randn(2, 5, 3), states="explicit", check=False)
    assert result.states == {"loop.h0": "loop.hn"}
    assert "{'x': {0: 'batch', 1: 'time'}}" in result.notes[0]  # what is looped over is time, and the other one batch
    rows = [np.random.default_rng(steps).standard_normal((steps, 3)).astype(np.float32) for steps in (2, 7)]
    with lstm_onnx.load(path, provider="cpu", threads=1) as model:
        for row, results in zip(rows, model.map({"x": row} for row in rows), strict=True):
            wanted = module(torch.from_numpy(row)[None])[0].detach().numpy()
            np.testing.assert_allclose(results["output"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_a_state_of_fixed_sizes_is_a_state(start: float, tmp_path: Path) -> None:
    module = OverSteps(lambda _, x: torch.full((1, 4), start, dtype=x.dtype)).eval()
    x, axes = torch.randn(1, 7, 3), {"x": {1: "time"}}
    lstm_onnx.export(module, tmp_path / "a.onnx", example_inputs=x[:, :5], dynamic_shapes=axes, states="explicit")
    with lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1) as model:
        assert model.states == {"loop.h0": "loop.hn"}
        stream = model.stream()
        last = [stream.run({"x": x[:, a:b]})["output"] for a, b in ((0, 1), (1, 7))][-1]
    np.testing.assert_allclose(last, module(x).detach(), rtol=1e-5, atol=1e-6)


class BesideCumulative(nn.Module):
    """A loop between operators that a file computes in a loop of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, steps = x.new_zeros(x.shape[0], 3), []
        for x_t in x.cummax(1)[0].unbind(1):
            h = 0.2 * h + 0.8 * self.cell(x_t, h)
            steps.append(h)
        return torch.logcumsumexp(torch.stack(steps, 1), 1)


def test_cumulative_operators_are_not_taken_for_the_loop(tmp_path: Path) -> None:
    module, x, axes = BesideCumulative().eval(), torch.randn(2, 11, 3), {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, tmp_path / "a.onnx", example_inputs=x[:, :5], dynamic_shapes=axes, states="explicit")
    with lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1) as model:
        assert model.states["loop.h0"] == "loop.hn"
        stream = model.stream(batch=2)
        chunks = [stream.run({"x": x[:, a:b]})["output"] for a, b in ((0, 1), (1, 6), (6, 11))]
    np.testing.assert_allclose(torch.cat(chunks, 1), module(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["NormalizedLSTM"])
def test_verify_compares_chunks_and_rejects_mutants_of_the_body(name: str, tmp_path: Path) -> None:
    module, _ = explicit(name, tmp_path / "a.onnx")
    report = lstm_onnx.verify(module, tmp_path / "a.onnx", example_inputs=signal(2, 5), threads=1)
    assert report, str(report)
    outcomes = {mutant.name: mutant.outcome for mutant in report.mutants}
    names = ("a carry of a loop unchanged", "a loop of one step more", "a loop's elements one step late")
    assert [outcomes[name] for name in names] == ["rejected"] * 3
