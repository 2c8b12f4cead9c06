"""A file that ONNX Runtime does not open, and one whose rows are not independent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].relu()  # type: ignore[no-any-return]


class Counted(nn.Module):
    """Counts its steps, and adds a row of a table for the count of the first sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.places = nn.Embedding(9, 3)

    def forward(self, x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        return self.lstm(x + self.places(count[0] % 9))[0], count + x.size(1)


def test_streams_with_a_common_count_are_not_stepped_together(tmp_path: Path) -> None:
    axes = {"x": {0: "batch", 1: "time"}, "count": {0: "batch"}}
    example = (torch.randn(2, 4, 3), torch.tensor([0, 0]))
    lstm_onnx.export(
        Counted().eval(), tmp_path / "m.onnx", example_inputs=example, dynamic_shapes=axes, states="explicit"
    )
    assert "depends on the other sequences" in (lstm_onnx.load(tmp_path / "m.onnx").metadata.batch_mixes or "")


def test_a_file_that_does_not_open_names_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is of the module, and not of a file that is gone."""
    monkeypatch.setattr(
        "lstm_onnx.exporter.trials.shape_trial.write_model", lambda _model, _arrays, path: path.write_bytes(b"x")
    )
    with pytest.raises(ExportError) as caught:
        lstm_onnx.export(Tagger().eval(), tmp_path / "m.onnx", example_inputs=torch.zeros(2, 4, 3))
    assert str(caught.value).startswith("the exported file of Tagger is not valid: ")
    assert "trial.onnx" not in str(caught.value)
    assert not list(tmp_path.iterdir())
