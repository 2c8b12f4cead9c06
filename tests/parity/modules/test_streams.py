"""verify compares each chunking of a module's streams with the whole sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from tests.architectures.architecture import seeded
from tests.module_files import with_metadata

AXES = {"x": {0: "batch", 1: "time"}}


class Smoothed(nn.Module):
    """A mean over three steps before the LSTM, which its states do not carry."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, 0, 2, 0))
        return self.lstm((padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3)[0]


class Plain(Smoothed):
    """The same without it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


def exported(make: type[nn.Module], path: Path) -> nn.Module:
    module = seeded(make)()
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 9, 4), dynamic_shapes=AXES, states="explicit")
    return module


def test_every_chunking_is_compared_with_the_whole(tmp_path: Path) -> None:
    module = exported(Plain, tmp_path / "m.onnx")
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert report
    labels = [case.label for case in report.cases if case.kind == "chunks"]
    assert "batch 3, 6 steps, states, every chunking" in labels
    assert "batch 1, 6 steps, no states, every chunking" in labels
    assert [case.label for case in report.cases if case.kind == "pool"] == ["batch 3, 6 steps, no states, in a pool"]


def test_a_file_that_says_it_streams_and_does_not_is_not_in_parity(tmp_path: Path) -> None:
    module = exported(Smoothed, tmp_path / "m.onnx")
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", mutants="none")
    assert report
    assert any(note.startswith("streams were not compared: cannot be streamed: ") for note in report.notes)
    path = with_metadata(tmp_path / "lie.onnx", tmp_path / "m.onnx", not_streamable="", time_axes=("time",))
    report = lstm_onnx.verify(module, path, mutants="none")
    assert not report
    failed = {case.kind for case in report.cases if not case.passed}
    assert failed == {"chunks", "pool"}


@pytest.mark.parametrize("name", ["packed_tagger", "tied_language_model", "pos_tagger_batch_first"])
def test_lengths_and_axes_of_batch_and_time(name: str) -> None:
    """Lengths go with each chunk; where an output has batch and time as one axis, one sequence is cut."""
    from tests.architectures import ALL
    from tests.module_files import module_file

    architecture = next(item for item in ALL if item.name == name)
    report = lstm_onnx.verify(architecture.build(), module_file(name, "explicit"), mutants="none")
    assert report, str(report)
    assert sum(case.kind == "chunks" for case in report.cases) >= 2
