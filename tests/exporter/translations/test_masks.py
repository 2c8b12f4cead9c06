"""Choices by a mask between numbers of any type, and sums of masks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, right, signal


class Selections(nn.Module):
    """Each way to choose, beside a GRU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.gru(x)[0]
        mask, large, whole = y > 0, y.abs() > 0.2, (y * 9).to(torch.int16)
        by_row = y < 0
        by_row[x[..., 0] > 0] = True
        by_entry = y < 0
        by_entry[..., 1] = False
        return [
            torch.where(mask, large, x[..., :1] > 0),
            torch.where(mask, False, True),
            torch.where(mask, True, large),
            torch.where(mask, large, False),
            torch.where(mask, True, 0.5),
            torch.where(mask, whole, torch.tensor(-300, dtype=torch.int16)),
            large.masked_fill(mask, False),
            large.masked_fill(mask, torch.tensor(True)),
            whole.masked_fill(mask, 300),
            whole.to(torch.int8).masked_fill(mask, -3),
            whole.long().masked_fill(mask, True),
            by_row,
            by_entry,
            mask + large,
            torch.add(mask, large, alpha=False),
            y + mask,
            y.masked_select(mask).sum(),
            x.masked_select(mask[..., :1]).sum(),
        ]


def test_selections_are_pytorchs(tmp_path: Path) -> None:
    right(Selections(), signal, X, tmp_path)


class OfMasks(nn.Module):
    """Each operator that masks are numbers to, beside an LSTM."""

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


def test_sums_and_sorts_of_masks_are_pytorchs(tmp_path: Path) -> None:
    right(OfMasks(), signal, X, tmp_path)
