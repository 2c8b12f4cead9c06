"""A batch norm in training takes the batch's own statistics, as in PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.exporter.helpers import agree, eager, made


class Normed(nn.Module):
    """Always by the batch; the running statistics, which it takes, change in copies alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, var = self.lstm(x)[0].transpose(1, 2), mean.clone(), var.clone()
        y = F.batch_norm(y, mean, var, training=True, momentum=0.3, eps=1e-3)
        return y, mean, var


@pytest.mark.filterwarnings("ignore:.*the sequences of a batch")
def test_batch_norm_in_training(tmp_path: Path) -> None:
    arguments = (torch.randn(2, 5, 3), torch.randn(4), torch.rand(4))
    file = made(Normed(), arguments, {}, tmp_path)
    agree(file.run(arguments), eager(Normed().eval(), arguments))
