"""Means of whole numbers, norms, and the largest and smallest entries of masks and of whole tensors."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Reductions(nn.Module):
    """Each reduction, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        whole, mask = (y * 9).long(), y > 0
        return [
            torch.mean(whole, 1, dtype=torch.float32),
            torch.mean(whole, (0, 2), keepdim=True, dtype=torch.float32),
            torch.mean(whole, dtype=torch.float32),
            torch.mean(y, -1, dtype=torch.float64),
            torch.mean(y, None, keepdim=True),
            y.argmax(keepdim=True),
            y.argmin(keepdim=True),
            *(torch.linalg.vector_norm(y, order, keepdim=True) for order in (2, 3, -math.inf)),
            y.amax(),
            y.amin((0, -1), keepdim=True),
            *torch.aminmax(y),
            mask.amax(1),
            mask.amin(),
            mask.max(),
            *mask.max(1),
            *mask.min(-1, keepdim=True),
        ]


def test_reductions_are_pytorchs(tmp_path: Path) -> None:
    right(Reductions(), signal, X, tmp_path)
