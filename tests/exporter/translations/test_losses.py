"""A loss within a forward is PyTorch's, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, right, signal

pytestmark = pytest.mark.sweep(2)


class Loss(nn.Module):
    """The loss of a tagger against the first feature's sign."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.options = nn.LSTM(3, 4, batch_first=True), options

    def forward(self, x: Tensor) -> Tensor:
        target = (x[..., 0] > 0).long()
        return F.cross_entropy(self.lstm(x)[0].transpose(1, 2), target, **self.options)


def test_cross_entropy_is_pytorchs(tmp_path: Path) -> None:
    right(Loss(weight=torch.tensor([1.0, 0.3, 2.0, 1.0]), reduction="none"), signal, X, tmp_path)


def test_label_smoothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"test_losses\.py:\d+.*label_smoothing has no translation to ONNX; write it"):
        made(Loss(label_smoothing=0.1), signal(2, 4), X, tmp_path)
