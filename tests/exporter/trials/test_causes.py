"""The reason why a file is not kept is the true one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, made, signal


def ties(y: Tensor) -> Tensor:
    return (y * 2).round().sum(-1).long().topk(2, 1)[1]


def kth_of_ties(y: Tensor) -> Tensor:
    return (y * 2).round().sum(-1).long().kthvalue(2, 1)[1]


def rounded_to_half(y: Tensor) -> Tensor:
    return (y.half() * 3).exp()


def summed_in_half(y: Tensor) -> Tensor:
    return y.half().sum(1)


def by_text(y: Tensor) -> Tensor:
    return y * float(str(y.shape[1])[-1])


def seeded(y: Tensor) -> Tensor:
    torch.manual_seed(0)
    return y + torch.randn(y.shape[0], 1, 4) * 1e-3


def own_generator(y: Tensor) -> Tensor:
    return y + torch.rand(y.shape[0], 1, 4, generator=torch.Generator().manual_seed(3))


def constant_of_a_generator(y: Tensor) -> Tensor:
    return y + torch.rand(4, generator=torch.Generator().manual_seed(3))


def seeded_dropout(y: Tensor) -> Tensor:
    torch.manual_seed(0)
    return nn.functional.dropout(y, 0.5)


CAUSES: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (
        ties,
        r"was not kept; at test_causes\.py:\d+: .*topk.*: PyTorch does not define which of equal numbers topk takes",
    ),
    (kth_of_ties, "PyTorch does not define which of equal numbers kthvalue takes"),
    (rounded_to_half, "which is the rounding of float16 at .*; return float32"),
    (summed_in_half, r"has dtype float32 .*only after \.float\(\)"),
    (by_text, r"was not kept; at test_causes\.py:\d+: .*: a size is turned into text"),
    (seeded, r"^at test_causes\.py:\d+: .*: draws random numbers in eval mode"),
    (own_generator, r"^at test_causes\.py:\d+: .*: draws random numbers in eval mode"),
    (constant_of_a_generator, r"^at test_causes\.py:\d+: .*: draws random numbers in eval mode"),
    (seeded_dropout, r"^at test_causes\.py:\d+: .*: draws random numbers in eval mode"),
]


class Read(nn.Module):
    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.read = nn.LSTM(3, 4, batch_first=True), read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0])


@pytest.mark.parametrize(("read", "cause"), CAUSES)
@pytest.mark.sweep(4)
def test_the_cause_is_named(read: Callable[[Tensor], Tensor], cause: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=cause):
        made(Read(read).eval(), signal(2, 7), X, tmp_path)
