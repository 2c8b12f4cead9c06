"""Fourier transforms of lengths that are no powers of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, made, right


class Transforms(nn.Module):
    """Of the features and of an axis before them, real and complex, there and back; lengths of 15, 12 and 6."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        spectrum = torch.fft.rfft(x)  # (batch, time, 6, 8)
        y, _ = self.lstm(spectrum.abs().mean(2))
        bins = torch.fft.fft(spectrum, dim=2, norm="ortho")
        both = torch.fft.rfft2(x, norm="forward")
        turned = y * torch.exp(1j * y) * (2 - 1j)
        return [
            y,
            *(part for value in (bins, both, turned, torch.fft.ifft(bins, dim=2)) for part in (value.real, value.imag)),
            torch.fft.irfft(spectrum, n=15),
            torch.fft.irfft(spectrum, n=12),
        ]


def test_they_are_products(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor]:
        return (torch.randn(batch, time, 6, 15, generator=torch.Generator().manual_seed(batch + time)),)

    file = right(Transforms().eval(), inputs, {"x": BATCH_TIME}, tmp_path, sizes=((1, 1), (3, 7)), tolerance=1e-6)
    assert "DFT" not in file.operators


class Frames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(7, 4, batch_first=True)
        self.register_buffer("window", torch.hann_window(10))

    def forward(self, x: Tensor) -> Tensor:
        found = torch.stft(x, 12, 6, 10, self.window, center=False, return_complex=True)
        y: Tensor = self.lstm(found.abs().transpose(1, 2))[0]
        return y


def test_frames_are_a_convolution_that_streams(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor]:
        return (torch.randn(batch, 12 + 6 * time, generator=torch.Generator().manual_seed(batch + time)),)

    module = Frames().eval()
    (x,), (example,) = inputs(2, 5), inputs(2, 4)
    file = made(module, example, {"x": BATCH_TIME}, tmp_path, states="explicit").model
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(file.run({"x": x})["output"], expected, rtol=0, atol=1e-6)
    stream = file.stream(batch=2)
    parts = [stream(part.numpy()) for part in x.split((5, 20, 17), dim=1)]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, rtol=0, atol=1e-6)
