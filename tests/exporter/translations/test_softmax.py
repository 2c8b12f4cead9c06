"""A softmax with a dtype is computed in that dtype, of any input."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, agree, eager, made, right, signal


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


def test_log_softmax_beside_a_nan_or_an_infinity(tmp_path: Path) -> None:
    class Logarithms(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return x.log_softmax(-1), x.log_softmax(0, dtype=torch.float64), x.double().log_softmax(-1)

    x = torch.tensor([[1.0, torch.nan, 2.0], [torch.inf, 0.0, 1.0], [-torch.inf, 0.0, 1.0], [-torch.inf] * 3])
    file = made(Logarithms(), torch.randn(2, 3), {"x": {0: "rows"}}, tmp_path)
    for rows in (x, x[2:], x[2:3]):
        agree(file.run(rows), eager(Logarithms(), (rows,)))
