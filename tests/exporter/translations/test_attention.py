"""Attention with a mask: a query that may see nothing gets zeros, as in PyTorch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lstm_onnx import verify
from tests.exporter.helpers import X, made

pytestmark = pytest.mark.sweep(6)


class Attends(nn.Module):
    """An LSTM whose outputs attend to those whose first feature is positive, boolean mask or -inf."""

    def __init__(self, kind: str, heads: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.kind, self.heads = kind, heads

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        if self.heads > 1:
            y = y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mask = (x[..., 0] > 0).unsqueeze(1)
        mask = mask.unsqueeze(1) if self.heads > 1 else mask
        if self.kind == "float":
            mask = torch.zeros_like(mask, dtype=y.dtype).masked_fill(~mask, -math.inf)
        if self.kind == "scaled":
            return scaled_dot_product_attention(y, y, y, mask, scale=0.25)
        return scaled_dot_product_attention(y, y, y, attn_mask=mask)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("kind", ["boolean", "float", "scaled"])
def test_queries_that_may_see_nothing_get_zeros(kind: str, heads: int, tmp_path: Path) -> None:
    module = Attends(kind, heads)
    file = made(module, (torch.randn(2, 5, 3),), X, tmp_path)
    x = torch.randn(3, 7, 3)
    x[0, :, 0], x[1, :, 0] = -1.0, 1.0
    with torch.no_grad():
        expected = module(x)
    assert not expected[0].any()
    assert expected[1:].all()
    found = torch.from_numpy(file.run(x)[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    if kind == "boolean" and heads == 1:
        assert verify(module, file.path)
