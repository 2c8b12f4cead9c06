"""torch.cdist in every norm, also of tensors that differ in their axes, and of rows that are the same."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Distances(nn.Module):
    """Distances of steps from each other, and from learned points."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.points = nn.LSTM(3, 4, batch_first=True), nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        pairs = [torch.cdist(y, x.new_ones(1, 2, 4), p) for p in (0.0, 1.0, 2.0, 3.0, math.inf)]
        exact = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist")
        return [torch.cdist(y, self.points), torch.cdist(y[0], self.points), exact, *pairs]


def test_distances_are_pytorchs(tmp_path: Path) -> None:
    right(Distances(), signal, X, tmp_path)
