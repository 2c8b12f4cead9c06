"""Streams of files with a largest number of steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lstm_onnx


class Longer(nn.Module):
    """An LSTM that does something else, or nothing, with more than 20 steps; or that has no such limit."""

    def __init__(self, beyond: str) -> None:
        super().__init__()
        self.beyond = beyond
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.lstm(x)[0]
        if x.shape[1] > 20 and self.beyond == "refuses":
            raise ValueError("too long")
        return y * 2 if x.shape[1] > 20 and self.beyond == "branches" else y


@pytest.mark.parametrize("beyond", ["refuses", "branches", "nothing"])
def test_a_stream_has_no_largest_length(beyond: str, tmp_path: Path) -> None:
    """A file for at most so many steps streams where its module goes on as the stream does."""
    torch.manual_seed(0)
    module = Longer(beyond).eval()
    lstm_onnx.export(
        module,
        tmp_path / "m.onnx",
        example_inputs=torch.randn(2, 5, 3),
        dynamic_shapes={"x": {0: "batch", 1: torch.export.Dim("time", max=20)}},
        states="explicit",
    )
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu")
    if beyond != "nothing":
        with pytest.raises(lstm_onnx.InputError, match="at most 20 steps, and a stream may have more"):
            model.stream()
        return
    x = torch.randn(1, 50, 3)
    stream = model.stream()
    found = np.concatenate([stream.run({"x": x[:, at : at + 10].numpy()})["output"] for at in range(0, 50, 10)], 1)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(x).numpy(), atol=1e-6)
