"""What a user sees of an error that no one catches: their own lines, and the message."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y


class Raising(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(7, -1, 3, 5)


class Untranslated(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.linalg.inv(x.transpose(1, 2) @ x).sum()


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        while y.sum() > 0:
            y = y - 1
        return y


def _frames(error: BaseException | None) -> list[str]:
    assert error is not None
    return [Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)]


def _error(call: Any, *args: Any, **kwargs: Any) -> ExportError:
    with pytest.raises(ExportError) as caught:
        call(*args, **kwargs)
    return caught.value


@pytest.mark.parametrize("kind", [Untranslated, Branching])
def test_neither_our_frames_nor_torchs_errors_are_shown(kind: type[Plain], tmp_path: Path) -> None:
    error = _error(lstm_onnx.export, kind().eval(), tmp_path / "m.onnx", example_inputs=(torch.randn(2, 7, 3),))
    assert _frames(error)[-2:] == ["test_tracebacks.py", "tracebacks.py"]
    shown = "".join(traceback.format_exception(error))
    assert shown.count("Traceback (most recent call last)") == 1
    assert "test_tracebacks.py:" in str(error)  # the line of the forward


@pytest.mark.parametrize("verifying", [False, True])
def test_of_an_error_of_the_users_code_its_own_lines_are_shown(verifying: bool, tmp_path: Path) -> None:
    path, x = tmp_path / "m.onnx", (torch.randn(2, 5, 3),)
    if verifying:
        lstm_onnx.export(Plain().eval(), path, example_inputs=x)
        error = _error(lstm_onnx.verify, Raising().eval(), path, example_inputs=x)
    else:
        error = _error(lstm_onnx.export, Raising().eval(), path, example_inputs=x)
    assert isinstance(error.__cause__, RuntimeError)
    assert set(_frames(error.__cause__)) == {"test_tracebacks.py"}
    shown = "".join(traceback.format_exception(error))
    assert "return super().forward(x).view(7, -1, 3, 5)" in shown
    assert "lstm_onnx/exporter" not in shown.replace("\\", "/")
