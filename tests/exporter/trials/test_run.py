"""A file that ONNX Runtime does not open: the error is of the module, and not of a file that is gone."""

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


def test_a_file_that_does_not_open_names_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lstm_onnx.exporter.trials.shape_trial.write_model", lambda _model, _arrays, path: path.write_bytes(b"x")
    )
    with pytest.raises(ExportError) as caught:
        lstm_onnx.export(Tagger().eval(), tmp_path / "m.onnx", example_inputs=torch.zeros(2, 4, 3))
    assert str(caught.value).startswith("the exported file of Tagger is not valid: ")
    assert "trial.onnx" not in str(caught.value)
    assert not list(tmp_path.iterdir())
