"""Operands of several types are computed in PyTorch's type, whatever name an operator is called by."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Operands(nn.Module):
    """Floats with integers and masks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        whole, mask = (y * 9).long(), y > 0
        return [
            torch.divide(y.sum(1), mask.sum(1) + 1),
            torch.divide(whole, 2),
            torch.true_divide(whole, whole.abs() + 1),
            torch.multiply(y, mask),
            torch.subtract(y, whole),
            torch.greater(y, whole),
            torch.less_equal(y, whole),
            torch.special.expm1(y * 1e-6) * 1e6,
            torch.special.softmax(whole, -1, dtype=torch.float64),
            torch.stack([y, y.double()]),
            torch.cat([y, whole, mask], -1),
            torch.concat([whole.int(), mask], 1),
            torch.hstack([y.half(), whole]),
            torch.vstack([whole, mask]),
        ]


def test_operands_of_several_types(tmp_path: Path) -> None:
    right(Operands(), signal, X, tmp_path)


class LastSteps(nn.Module):
    """The last step of each sequence, looked up by integers of two types."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.lstm(x)[0]
        rows, last = torch.arange(len(x)), (x[..., 0] > -9).int().sum(1, dtype=torch.int32) - 1
        written = y.clone()
        written[rows, last] = 7.0
        return y[rows, last], written


def test_indices_of_two_types(tmp_path: Path) -> None:
    right(LastSteps(), signal, X, tmp_path)


def test_shifts_of_bytes(tmp_path: Path) -> None:
    class Shifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.lstm(x)[0]
            bits = (y > 0).to(torch.uint8)
            return bits << 7, (bits * 200) >> 3, bits << bits, torch.bitwise_left_shift(bits, 3), y.int() >> 1

    right(Shifting(), signal, X, tmp_path)
