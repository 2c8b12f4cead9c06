"""Streams of the architectures, and of sequences that depend on each other or have limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import InputError
from tests.architectures import ALL
from tests.architectures.architecture import Architecture, seeded

from .test_stream_trial import Net, exported

pytestmark = pytest.mark.sweep(18)


def test_letters_of_words_are_no_states_of_the_stream(tmp_path: Path) -> None:
    """An LSTM that runs anew for each step keeps its states inside, and the one over the words streams."""
    architecture = next(item for item in ALL if item.name == "character_tagger")
    made = _of_architecture(architecture, tmp_path / "m.onnx")
    assert list(made.states) == ["word_lstm.h0", "word_lstm.c0"]
    assert any("char_lstm starts again at each step" in note for note in made.notes)
    assert lstm_onnx.load(tmp_path / "m.onnx", provider="cpu").metadata.not_streamable == ""


def _of_architecture(architecture: Architecture, path: Path) -> lstm_onnx.ExportResult:
    module, inputs = architecture.example()
    return lstm_onnx.export(
        module, path, example_inputs=inputs, dynamic_shapes=architecture.dynamic_shapes, states="explicit"
    )


def test_sequences_that_depend_on_each_other_are_not_stepped_together(tmp_path: Path) -> None:
    """A softmax over the wrong axis, the batch: a pool would give each stream numbers of the others."""
    _, made = exported(lambda m, x: m.lstm(x)[0].softmax(0), tmp_path / "m.onnx")
    assert any(note.startswith("the sequences of a batch are not independent: output ") for note in made.notes)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    with pytest.raises(InputError, match="streams cannot be stepped together"):
        model.pool()
    assert model.stream(batch=2).batch == 2
    sequences = [np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32) for seed in range(6)]
    for x, found in zip(sequences, model.map({"x": x} for x in sequences), strict=True):
        np.testing.assert_allclose(found["output"], model.run({"x": x[None]})["output"][0], rtol=0, atol=1e-6)


def test_an_lstm_that_runs_along_the_batch_is_not_batched(tmp_path: Path) -> None:
    """Data of (batch, time, size) in a layer without batch_first: each sequence continues the one before it."""
    module = Net(lambda m, x: m.lstm(x.transpose(0, 1))[0].transpose(0, 1))
    axes = {"x": {0: "batch", 1: "time"}}
    made = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=torch.randn(3, 5, 4), dynamic_shapes=axes)
    assert any(note.startswith("the sequences of a batch are not independent: output ") for note in made.notes)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    sequences = [np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32) for seed in range(3)]
    for x, found in zip(sequences, model.map({"x": x} for x in sequences), strict=True):
        np.testing.assert_allclose(found["output"], model.run({"x": x[None]})["output"][0], rtol=0, atol=1e-6)


def test_rows_are_not_run_below_the_least_batch(tmp_path: Path) -> None:
    """A batch of 1 would have an empty half, at which ONNX Runtime ends the process."""

    def halves(module: nn.Module, x: Tensor) -> Tensor:
        half = x.size(0) // 2
        return torch.cat([module.lstm(x[:half])[0], module.lstm(x[half:])[0]])

    module = seeded(lambda: Net(halves))()
    axes, x = {"x": {0: "batch", 1: "time"}}, torch.randn(5, 3, 4)
    made = lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=x, dynamic_shapes=axes)
    assert made.notes[0].startswith("batch is 2 or more in the file")
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    assert model.metadata.batch_mixes == ""
    with torch.no_grad():
        np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], module(x).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("largest", [1, 2, 5, 7, 8])
def test_a_short_axis_is_streamed_within_its_limit(largest: int, tmp_path: Path) -> None:
    """The trial's chunks fit into the longest sequence; where no two do, nothing is known of streams."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), Whole())
    time = torch.export.Dim("time", min=1, max=largest) if largest > 1 else None
    shapes = {"input": {0: "batch", 1: time} if time is not None else {0: "batch"}}
    example = torch.randn(2, largest, 3)
    made = lstm_onnx.export(
        module.eval(), tmp_path / "m.onnx", example_inputs=example, dynamic_shapes=shapes, states="explicit"
    )
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    assert not any("cannot be streamed" in note for note in made.notes)
    x = example[:1].numpy()
    whole = model.run({"input": x})["output"]
    if largest > 1:
        stream = model.stream()
        steps = [stream.run({"input": x[:, at : at + 1]})["output"] for at in range(largest)]
        np.testing.assert_allclose(np.concatenate(steps, 1), whole, atol=1e-6)


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("architecture", ALL, ids=lambda item: item.name)
def test_all_architectures_stream_rightly_or_not_at_all(architecture: Architecture, tmp_path: Path) -> None:
    """verify compares each chunking with the whole sequence in PyTorch."""
    made = _of_architecture(architecture, tmp_path / "m.onnx")
    if not made.states:
        pytest.skip("it has no states")
    report = lstm_onnx.verify(architecture.example()[0], tmp_path / "m.onnx", mutants="none")
    assert report, str(report)
    streams = [case for case in report.cases if case.kind in ("chunks", "pool", "steps")]
    refused = any("cannot be streamed" in note for note in made.notes)
    assert bool(streams) is not refused
