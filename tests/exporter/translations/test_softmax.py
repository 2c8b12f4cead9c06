"""A softmax with a dtype is computed in that dtype, of any input."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Weights(nn.Module):
    """Of halves, of floats in float64, of whole numbers, and of a number alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        return [
            y.half().softmax(1, dtype=torch.float32),
            y.softmax(-1, dtype=torch.float64),
            (y * 9).long().softmax(-1, dtype=torch.float32),
            (y > 0).log_softmax(1, dtype=torch.float64),
            y.sum().softmax(0),
        ]


def test_softmax_is_computed_in_its_dtype(tmp_path: Path) -> None:
    right(Weights(), signal, X, tmp_path, tolerance=3e-7)
