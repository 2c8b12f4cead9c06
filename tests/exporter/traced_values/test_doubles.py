"""Norms of float64 modules are as exact as float64 is."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.exporter.helpers import X, eager, made, nodes, signal


class Double(nn.Module):
    """A projected LSTM, which runs in float64, and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 5, batch_first=True, proj_size=4)
        self.norm, self.plain = nn.LayerNorm(4), nn.LayerNorm((4,), eps=1e-3, elementwise_affine=False)
        self.batch_norm = nn.BatchNorm1d(4)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        nn.init.uniform_(self.batch_norm.running_var)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0]
        z = y.transpose(1, 2)
        numbers = 0.1 + y * 0.7 - (0.3 - y) / 1.1 + 0.9 / (y + 2.3) + (y * y + 1) ** 0.3 + torch.add(y, 0.2).sub(1e-9)
        return self.norm(y), self.plain(y), self.batch_norm(z), F.leaky_relu(z, 0.2), F.elu(z, 0.7), numbers, y * 0.5


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_eps_slopes_and_numbers_are_doubles(tmp_path: Path) -> None:
    module = Double().eval().double()
    file = made(module, (signal(2, 4)[0].double(),), X, tmp_path)
    x = signal(3, 7)[0].double()
    for actual, expected in zip(file.run((x,)), eager(module, (x,)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-14)


def test_those_of_float32_are_operators(tmp_path: Path) -> None:
    class Single(Double):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

    operators = {node.op_type for node in nodes(made(Single(), signal(2, 4), X, tmp_path).proto)}
    assert {"LayerNormalization", "BatchNormalization", "LeakyRelu", "Elu"} <= operators
