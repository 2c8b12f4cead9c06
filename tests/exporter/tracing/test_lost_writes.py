"""Weights and buffers that a module writes into where its inputs are large, and its example inputs are not."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made, right, signal

pytestmark = pytest.mark.sweep(3)


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.head.weight.mul_(1 + (x.max() > 8).float())
        return self.head(self.lstm(x)[0])


class Recurrent(Weight):
    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        with torch.no_grad():
            self.lstm.weight_hh_l0.mul_(1 + (x.max() > 8).float())
        return y + self.lstm(x)[0]


class Data(Weight):
    def forward(self, x: Tensor) -> Tensor:
        self.scale.data.mul_(1 + (x.max() > 8).float())
        return self.head(self.lstm(x)[0]) * self.scale


@pytest.mark.parametrize(("kind", "name"), [(Weight, "head.weight"), (Recurrent, "lstm.weight_hh_l0"), (Data, "scale")])
def test_what_a_file_would_not_keep_is_refused(kind: type[nn.Module], name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{name} is written in place with numbers that depend on the inputs"):
        made(kind().eval(), signal(2, 4), X, tmp_path)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.lstm = nn.Embedding(9, 3, max_norm=0.5), nn.LSTM(3, 4, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lstm(self.words(tokens))[0]


def test_rows_of_a_largest_norm_are_scaled_at_each_look_up(tmp_path: Path) -> None:
    module = Words().eval()
    tokens = torch.arange(9)[None]
    file = made(module, (tokens[:, :4],), {"tokens": {0: "batch", 1: "time"}}, tmp_path)
    agree(file.run((tokens,)), eager(module, (tokens,)))


class Peak(nn.Module):
    """Scales by the largest number so far."""

    peak: Tensor

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.limit = nn.Parameter(torch.tensor(9.0))
        self.register_buffer("peak", torch.tensor(9.0))
        self.write = forward

    def forward(self, x: Tensor) -> Tensor:
        out = self.lstm(x)[0] * self.peak * self.limit
        self.write(self, x.amax())
        return out


def by_data(module: Peak, found: Tensor) -> None:
    module.peak.data.copy_(torch.maximum(module.peak, found))


def by_a_view(module: Peak, found: Tensor) -> None:
    module.peak.data.view(1).masked_fill_(found > 9, 10.0)


def of_a_parameter(module: Peak, found: Tensor) -> None:
    module.limit.copy_(torch.maximum(module.limit, found))


@pytest.mark.parametrize("write", [by_data, by_a_view, of_a_parameter])
def test_a_largest_number_that_the_example_does_not_reach_is_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"py:\d+: .*: (peak|limit) is written in place with numbers"):
        made(Peak(write), signal(2, 4), X, tmp_path)


def test_a_write_that_no_input_changes_is_none(tmp_path: Path) -> None:
    right(Peak(lambda module, _: module.peak.data.clamp_(max=9.0)), signal, X, tmp_path)
