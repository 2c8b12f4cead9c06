"""Assignments of fewer numbers than there are places, into tensors that a module keeps."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import lstm_onnx


class Fewer(nn.Module):
    rows: Tensor
    blocks: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 4)
        self.register_buffer("rows", torch.zeros(2, 4))
        self.register_buffer("blocks", torch.zeros(2, 3, 4))
        self.columns = torch.zeros(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cell(x, self.rows[:1])
        result = y + self.blocks.sum((0, 1)) + self.columns.sum()
        self.rows.copy_(y)  # (1, 4) into (2, 4)
        self.blocks[:, 1] = y
        self.blocks[0].copy_(y[0] * 0.1)
        self.columns[:] = self.columns[:, :1] + 0.1
        return result


def test_a_copy_fills_all_places(tmp_path: Path) -> None:
    module = Fewer().eval()
    lstm_onnx.export(module, tmp_path / "fewer.onnx", example_inputs=torch.randn(1, 3), dynamic_shapes={})
    own = copy.deepcopy(module)
    with lstm_onnx.load(tmp_path / "fewer.onnx", provider="cpu") as model, torch.no_grad():
        assert model.outputs["rows.hn"].shape == (2, 4)
        stream = model.stream()
        for x in torch.randn(6, 1, 3):
            np.testing.assert_allclose(stream(x.numpy()), own(x), rtol=1e-4, atol=1e-5)
