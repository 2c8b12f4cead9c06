"""Windows that a forward makes are constants of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, right, signal


class Windows(nn.Module):
    """Frames of an LSTM's outputs under each window."""

    def __init__(self, *, open_length: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.open_length = nn.LSTM(3, 8, batch_first=True), open_length

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        if self.open_length:
            return [y * torch.kaiser_window(x.size(1))[:, None]]
        return [
            y * torch.hamming_window(8),
            y * torch.hamming_window(8, periodic=False, alpha=0.6),
            y * torch.kaiser_window(8, beta=5.0, periodic=False),
            y * torch.bartlett_window(8),
        ]


def test_windows_are_pytorchs(tmp_path: Path) -> None:
    right(Windows(), signal, X, tmp_path)


def test_a_window_as_long_as_an_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="window"):
        made(Windows(open_length=True), signal(2, 4), X, tmp_path)
