"""Scatters of sources that are larger than their index, sums, products, extremes and means of what falls together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, agree, eager, made

SHAPES = {"x": BATCH_TIME, "group": BATCH_TIME}


def inputs(batch: int, time: int) -> tuple[Tensor, Tensor]:
    """x (batch, time, 4), with an infinity, and group (batch, time), of which several steps share one."""
    generator = torch.Generator().manual_seed(10 * batch + time)
    x = torch.randn((batch, time, 4), generator=generator)
    return x, torch.randint(0, 4, (batch, time), generator=generator)


class Scatters(nn.Module):
    """Every kind of scatter, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor, group: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        one, rows = group.unsqueeze(-1), x.new_full((x.size(0), 4, 4), 0.5)
        every = one.expand_as(y)
        counts = group.new_zeros(x.size(0), 4)
        return [
            y.scatter(2, one, x),
            y.scatter_add(2, one, x),
            y.scatter(2, one, x, reduce="add"),
            y.scatter(2, one, x, reduce="multiply"),
            y.scatter(2, one, 2.0, reduce="multiply"),
            counts.scatter_add(1, group, torch.ones_like(group)),
            counts.scatter_reduce(1, group, group, "amax", include_self=False),
            *(
                rows.scatter_reduce(1, every, y, kind, include_self=include_self)
                for kind in ("sum", "prod", "mean", "amax", "amin")
                for include_self in (True, False)
            ),
            rows.scatter_reduce(1, every, x.masked_fill(x > 0, -torch.inf), "amax", include_self=False),
        ]


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
def test_scatters_are_pytorchs(tmp_path: Path) -> None:
    module = Scatters()
    file = made(module, inputs(2, 6), SHAPES, tmp_path)
    for batch, time in ((1, 1), (3, 9), (5, 2)):
        given = inputs(batch, time)
        agree(file.run(given), eager(module, given))
