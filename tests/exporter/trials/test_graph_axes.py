"""Outputs of a traced graph beside those of its module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, signal


class Halved(nn.Module):
    """Returns bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0].to(torch.bfloat16)  # type: ignore[no-any-return]


def test_an_output_of_bfloat16_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^the output output is bfloat16, .* convert it by \.float\(\)"):
        made(Halved(), signal(2, 4), X, tmp_path)
