"""Operators of booleans for which ONNX or ONNX Runtime has no kernel: sums, choices, fills and sorts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Booleans(nn.Module):
    """Each operator, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        one, other, third = y > 0, y > 0.1, y < -0.1
        added = one.clone()
        added += third
        return [
            other + third,
            added,
            third + True,
            other + 1,
            other.any(1) + third.all(1),
            torch.where(one, third, other),
            torch.where(one, True, third),
            one.masked_fill(other, False),
            other.masked_fill(~one, True),
            one.sort(1)[0],
            one.sort(-1, descending=True)[0],
            *one.cummax(1),
            *one.cummin(-1),
        ]


def test_operators_of_booleans_are_pytorchs(tmp_path: Path) -> None:
    right(Booleans(), signal, X, tmp_path)
