"""Forwards that write into what a module keeps, where the example shows no change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, right, signal


class Peak(nn.Module):
    """Scales by the largest number so far."""

    peak: Tensor

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.limit = nn.Parameter(torch.tensor(9.0))
        self.register_buffer("peak", torch.tensor(9.0))
        self.write = forward

    def forward(self, x: Tensor) -> Tensor:
        out = self.lstm(x)[0] * self.peak * self.limit
        self.write(self, x.amax())
        return out


def by_data(module: Peak, found: Tensor) -> None:
    module.peak.data.copy_(torch.maximum(module.peak, found))


def by_a_view(module: Peak, found: Tensor) -> None:
    module.peak.data.view(1).masked_fill_(found > 9, 10.0)


def of_a_parameter(module: Peak, found: Tensor) -> None:
    module.limit.copy_(torch.maximum(module.limit, found))


@pytest.mark.parametrize("write", [by_data, by_a_view, of_a_parameter])
def test_a_write_that_the_example_does_not_show_is_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"test_kept_writes.py:\d+: .*forward writes into self\.(peak|limit) what"):
        made(Peak(write), signal(2, 4), X, tmp_path)


def test_a_write_that_no_input_changes_is_none(tmp_path: Path) -> None:
    right(Peak(lambda module, _: module.peak.data.clamp_(max=9.0)), signal, X, tmp_path)
