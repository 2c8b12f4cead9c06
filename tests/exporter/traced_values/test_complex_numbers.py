"""Angles of complex numbers, of which those of negative real ones are pi."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, made, signal


class Phases(nn.Module):
    """The phases of each step's spectrum, beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        spectrum = torch.fft.rfft(x)
        return self.lstm(x)[0], torch.angle(spectrum), spectrum.angle(), torch.complex(x, x * 0).angle()


def test_the_phase_of_negative_real_numbers_is_pi(tmp_path: Path) -> None:
    file = made(Phases(), signal(2, 4), X, tmp_path)
    x = torch.tensor([[[-1.0, -2.0, -3.0], [1.0, 2.0, 4.0]]])
    _, phase, same, real = file.run((x,))
    expected = torch.fft.rfft(x).angle().numpy()
    assert expected[0, 0, 0] == np.float32(math.pi)
    np.testing.assert_allclose(phase, expected, atol=1e-6)
    np.testing.assert_allclose(same, expected, atol=1e-6)
    np.testing.assert_array_equal(np.abs(real), torch.complex(x, x * 0).angle().abs().numpy())
