"""Weights and buffers that a module writes into where its inputs are large, and its example inputs are not."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made, signal

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
