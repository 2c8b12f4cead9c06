"""Numbers of several types in one function, which torch's translations do not all take."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X_LENGTHS, X, right, signal, with_lengths

pytestmark = pytest.mark.sweep(9)

MIXED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "clamp": lambda y, n: [n.clamp(0, 8.0), n.clamp(0.5, 8), n.clip(0, 1.5), y.clamp(0, 0.5), n.clamp(min=1, max=2.5)],
    "clamp in place": lambda y, n: [
        y.clone()[:, 1:].clamp_(-1, 0.5),
        y.clone().clip_(min=0, max=0.25),
        n.clone().clamp_(0, 3),
    ],
    "clamp by tensors and sizes": lambda y, n: [y.clamp(min=y.mean()), n.clamp(max=y.size(1)), n.clamp(0, 3)],
    "pow": lambda y, n: [(n + 9) ** y, y.abs() ** n.clamp(0, 3), n.abs() ** 0.5, n**2],
    "floor division": lambda y, n: [n // 2, n // 2.5, y // 0.5, -7 // (n.abs() + 1), n // (n.abs() + 1)],
    "others": lambda y, n: [n % 2.5, torch.maximum(n, torch.tensor(0.5)), torch.where(y > 0, n, y), n + y, n * 1.5],
}


class Attentive(nn.Module):
    """Attention of three axes, with a mask of lengths, without one, and causal by name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        y = self.lstm(x)[0]
        valid = (torch.arange(x.shape[1]) < lengths[:, None])[:, None]
        named = F.scaled_dot_product_attention(query=y, key=y, value=y, is_causal=True)
        return F.scaled_dot_product_attention(y, y, y, valid), F.scaled_dot_product_attention(y, y, y), named


def test_attention_of_three_axes(tmp_path: Path) -> None:
    right(Attentive(), with_lengths, X_LENGTHS, tmp_path)


@pytest.mark.parametrize("case", MIXED)
def test_mixed_numbers(case: str, tmp_path: Path) -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            # Integers that come from x itself, as a last bit of an output could tip its rounding.
            return [self.lstm(x)[0], *MIXED[case](x, (x * 8).round().long())]

    right(Mixing(), signal, X, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_refused_by_its_name(dtype: torch.dtype, tmp_path: Path) -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head, self.on = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2), True

        def forward(self, x: Tensor) -> Tensor:
            y = self.lstm(x)[0]
            with torch.autocast("cpu", dtype=dtype, enabled=self.on):
                y = self.head(y)
            return y.float()

    module, path = Cast().eval(), tmp_path / "m.onnx"
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ExportError, match=rf"y = self\.head\(y\): torch\.autocast is on and computes in {name}"):
        lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 5, 3),))
    module.on = False
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 5, 3),))
    assert lstm_onnx.verify(module, path, mutants="none")


class _ByteMasks(nn.Module):
    """As CRF layers choose: by masks of uint8, the dtype of masks before PyTorch had bool."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)
        self.register_buffer("channels", torch.tensor([0, 1, 2], dtype=torch.uint8))

    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.lstm(x)[0]
        mask = (x[..., :1] * 2).abs().to(torch.uint8)  # numbers above 1 are true as well
        channels: Any = self.channels
        return [
            torch.where(mask, y, y.new_zeros(())),
            torch.where(condition=mask, input=y, other=-y),
            y.where(mask, y + 1),
            y.where(condition=channels, other=-y),
            torch.where(torch.ones_like(mask, dtype=torch.uint8), y, -y),
        ]


@pytest.mark.filterwarnings("ignore:where received a uint8")
def test_a_choice_by_bytes(tmp_path: Path) -> None:
    right(_ByteMasks(), signal, X, tmp_path)
