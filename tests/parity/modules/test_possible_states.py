"""States that a module cannot have are not compared: a running variance is never below 0."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx

pytestmark = pytest.mark.usefixtures("without_sweeps")


class Standardized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.variance = torch.zeros(1, 3), torch.ones(1, 3)
        self.window = torch.zeros(1, 4, 3)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x
        self.variance = 0.9 * self.variance + 0.1 * (x - self.mean) ** 2
        standard = (x - self.mean) / (self.variance.sqrt() + 1e-4)
        self.window = torch.cat([self.window[:, 1:], standard[:, None]], 1)
        return self.lstm(self.window)[0][:, -1]


class Slower(Standardized):
    def forward(self, x: Tensor) -> Tensor:
        self.variance = self.variance * 1.02
        return super().forward(x)


def test_a_running_variance_is_that_of_calls(tmp_path: Path) -> None:
    path = tmp_path / "variance.onnx"
    lstm_onnx.export(Standardized().eval(), path, example_inputs=torch.randn(1, 3))
    assert lstm_onnx.verify(Standardized().eval(), path, mutants="none")
    assert not lstm_onnx.verify(Slower().eval(), path, mutants="none")
