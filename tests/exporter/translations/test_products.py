"""Products and cumulative products, of numbers of any kind."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Allocation(nn.Module):
    """How a differentiable neural computer shares out its rows: the least used first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        usage, order = torch.sort(self.lstm(x)[0].sigmoid(), dim=-1, stable=True)
        free = torch.cumprod(torch.cat([torch.ones_like(usage[..., :1]), usage], -1), -1)[..., :-1]
        whole = torch.round(x * 2).long().clamp(-1, 1)
        return (
            ((1 - usage) * free).gather(-1, order.argsort(-1)),
            x.cumprod(1),
            (x > 0).cumprod(-1),
            whole.int().cumprod(0),
            whole.cumprod(1, dtype=torch.float32),
            x.prod(1),
            whole.prod(-1, keepdim=True),
        )


def test_cumulative_products_are_those_of_pytorch(tmp_path: Path) -> None:
    right(Allocation(), signal, X, tmp_path)
