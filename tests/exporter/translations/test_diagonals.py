"""Diagonals that are read and written, of any sizes, and beside infinities."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Diagonals(nn.Module):
    """Of scores of steps beside each other, with a causal mask, and of each step's features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 12, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        steps = torch.arange(x.size(1))
        scores = (y @ y.mT).masked_fill(steps[:, None] < steps, -math.inf)  # (batch, time, time)
        others = scores.clone()
        others.diagonal(dim1=-2, dim2=-1).zero_()
        itself = torch.ones(x.size(1), x.size(1) + 1, dtype=torch.bool)
        itself.fill_diagonal_(False)
        square = y.unflatten(-1, (3, 4))  # (batch, time, 3, 4)
        return [
            scores.diagonal(dim1=1, dim2=2),
            (scores > 0).diagonal(0, -1, -2),
            *(square.diagonal(offset, -2, -1) for offset in (-1, 4)),
            torch.diagonal_scatter(square, square[:, :, 0, :2], 2, -2, -1),
            torch.diagonal_scatter(square, square[:, :, :2, 0], -1, -2, -1),
            others,
            itself,
        ]


def test_diagonals(tmp_path: Path) -> None:
    right(Diagonals(), signal, X, tmp_path)
