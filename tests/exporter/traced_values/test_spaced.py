"""``torch.linspace`` over an axis has PyTorch's numbers at every length, and of a fixed count its bits."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Positions(nn.Module):
    """An LSTM that is given where its steps lie."""

    edges: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.register_buffer("edges", torch.linspace(-1, 1, 21))

    def forward(self, x: Tensor) -> list[Tensor]:
        where = torch.linspace(-1, 1, x.size(1))
        y = self.lstm(torch.cat([x, where[:, None].expand(x.size(0), -1, 1)], -1))[0]
        ends = torch.linspace(0.1, 7, steps=x.size(1) + 1, dtype=torch.float64)
        places = torch.linspace(0, x.size(1) - 1, x.size(1)).long()
        return [
            y[:, places.flip(0)],
            where,
            ends,
            torch.linspace(-x.size(0), x.size(1), x.size(1)),
            torch.linspace(0, 1, 3),
            torch.bucketize(self.edges, torch.linspace(-1, 1, 21)),
        ]


def test_numbers_over_an_axis(tmp_path: Path) -> None:
    right(Positions(), signal, X, tmp_path, sizes=((1, 1), (2, 2), (3, 7), (1, 100)), tolerance=1e-6)
