"""torch.istft to as many samples as there were, as modules that clean sound call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx

pytestmark = pytest.mark.sweep(3)

SAMPLES, STEP = 16, 4


class Cleaned(nn.Module):
    """A mask for each bin of each frame."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        bins = SAMPLES // 2 + 1
        self.lstm, self.options = nn.LSTM(bins, bins, batch_first=True), options
        size = options.get("win_length", SAMPLES)
        self.window = None if options.pop("rectangular", False) else nn.Buffer(torch.hann_window(size))

    def forward(self, x: Tensor) -> Tensor:
        options = {"n_fft": SAMPLES, "hop_length": STEP, "window": self.window, **self.options}
        forward = {name: value for name, value in options.items() if name != "length"}
        spectrum = torch.stft(x, return_complex=True, **forward)
        mask = torch.sigmoid(self.lstm(spectrum.abs().transpose(1, 2))[0]).transpose(1, 2)
        return torch.istft(spectrum * mask, length=x.shape[-1], **options)


@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.parametrize(
    "options", [{}, {"win_length": 12, "normalized": True}, {"rectangular": True, "center": False}], ids=str
)
def test_a_module_gives_as_many_samples_as_it_takes(options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Cleaned(**options).eval(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 64),))
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    for batch, count in ((1, 40), (3, 66), (2, 95)):  # the last ones with samples behind the last whole step
        x = torch.randn(batch, count)
        (found,) = model.run({"x": x.numpy()}).values()
        np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert lstm_onnx.verify(module, path, mutants="none")
