"""What a loop carries as explicit states: named inputs and outputs, and a file that streams."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx

from .test_files import made
from .zoo import ZOO, signal


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


def test_a_loop_that_counts_its_steps_does_not_stream(tmp_path: Path) -> None:
    _, result = explicit("MaskedSteps", tmp_path / "a.onnx")
    assert any("cannot be streamed" in note for note in result.notes)


@pytest.mark.parametrize("name", ["NormalizedLSTM"])
def test_verify_compares_chunks_and_rejects_mutants_of_the_body(name: str, tmp_path: Path) -> None:
    module, _ = explicit(name, tmp_path / "a.onnx")
    report = lstm_onnx.verify(module, tmp_path / "a.onnx", example_inputs=signal(2, 5), threads=1)
    assert report, str(report)
    outcomes = {mutant.name: mutant.outcome for mutant in report.mutants}
    names = ("a carry of a loop unchanged", "a loop of one step more", "a loop's elements one step late")
    assert [outcomes[name] for name in names] == ["rejected"] * 3
