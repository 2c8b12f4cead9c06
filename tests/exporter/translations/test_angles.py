"""Angles are PyTorch's, with the signs of zeros and the infinities."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, made, signal

NUMBERS = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 2.5, -3.1, 1e-30, -1e-30, 1e30, np.nan)


class Phase(nn.Module):
    """The angle of each pair of features, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.lstm(x)[0]
        whole = torch.round(x * 2).long()
        return (
            torch.atan2(y[..., 0], y[..., 1]),
            torch.atan2(x[..., 0], x[..., 1]),
            torch.atan2(whole[..., 0], y[..., 0]),
        )


@pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")  # its LSTM reads them, too
def test_atan2_is_that_of_pytorch(tmp_path: Path) -> None:
    file = made(Phase(), signal(2, 4), X, tmp_path)
    pairs = torch.tensor(list(itertools.product(NUMBERS, NUMBERS)))
    x = torch.cat([pairs, torch.zeros(len(pairs), 1)], 1)[None]
    actual, expected = file.run((x,))[1], torch.atan2(x[..., 0], x[..., 1]).numpy()
    np.testing.assert_allclose(actual, expected, rtol=5e-7)  # NaN where it is NaN; pi and -pi are not the same
    assert {np.float32(np.pi), np.float32(-np.pi)} <= set(expected.ravel().tolist())
    file.run(signal(3, 5))
