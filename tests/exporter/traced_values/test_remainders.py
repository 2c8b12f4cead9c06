"""Both branches of an `if` on the remainder of a size are in the file."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import X, made, signal

Read = Callable[["Layers", Tensor], Tensor]


class Layers(nn.Module):
    def __init__(self, read: Read) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.pairs = nn.LSTM(3, 4, batch_first=True), nn.LSTM(6, 3, batch_first=True)
        self.fours, self.read = nn.LSTM(12, 4, batch_first=True), read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self, x)


def pyramid(self: Layers, x: Tensor) -> Tensor:
    batch, time, features = x.shape
    if time % 2 == 1:
        x = x[:, :-1, :]
    x = self.pairs(x.contiguous().view(batch, time // 2, features * 2))[0]
    if x.shape[1] % 2 != 0:
        x = x[:, :-1]
    return self.pairs(x.reshape(batch, x.shape[1] // 2, 6))[0]


def padded(self: Layers, x: Tensor) -> Tensor:
    if x.size(1) % 4:
        x = nn.functional.pad(x, (0, 0, 0, 4 - x.size(1) % 4))
    return self.fours(x.reshape(x.size(0), -1, 12))[0]


def conditional(self: Layers, x: Tensor) -> Tensor:
    steps = x.size(1) // 2 if x.size(1) % 2 == 0 else x.size(1) // 2 + 1
    return self.lstm(x[:, :steps])[0]


def negated(self: Layers, x: Tensor) -> Tensor:
    if not x.size(1) % 2 and self.training is False:
        x = x[:, 1:]
    return self.lstm(x)[0] * 2 if x.size(1) % 3 == 0 else self.lstm(x)[0]


def returned(self: Layers, x: Tensor) -> Tensor:
    if x.size(1) % 94 == 3 or x.size(1) % 2 > 0:
        return self.lstm(x)[0].sum(1)
    return self.lstm(x)[0].mean(1)


def of_rows(self: Layers, x: Tensor) -> Tensor:
    if x.size(0) % 2:
        x = torch.cat([x, x[-1:] * 2])
    return self.lstm(x)[0].reshape(x.size(0) // 2, 2, x.size(1), -1).mean(1)


def counted(self: Layers, x: Tensor) -> Tensor:
    added = 0
    if x.size(1) % 4:
        added = 4 - x.size(1) % 4
    x = self.lstm(nn.functional.pad(x, (0, 0, 0, added)))[0]
    return x[:, :-added] if added else x


def compared(self: Layers, x: Tensor) -> Tensor:
    if x.size(1) % 4 >= 2:
        x = x * 2
    if x.size(1) % 3 <= 1 or x.size(1) % 5 < 2:
        x = x + 1
    if x.size(1) % 97 < 4:
        x = x - 3
    return self.lstm(x)[0] * (3 if x.size(1) % 3 > 1 else 1)


ODD = [0]


def reported(self: Layers, x: Tensor) -> Tensor:
    if x.size(1) % 2:
        ODD[0] += 1
    return self.lstm(x)[0]


READS = [pyramid, padded, conditional, negated, returned, of_rows, counted, compared, reported]


@pytest.mark.parametrize("read", READS)
@pytest.mark.sweep(8)
def test_both_branches_of_a_remainder(read: Read, tmp_path: Path) -> None:
    module = Layers(read).eval()
    result = made(module, signal(3, 13), X, tmp_path, check=False)
    for batch, time in [(1, 12), (2, 13), (3, 14), (4, 15), (2, 97)]:
        (x,) = signal(batch, time)
        with torch.no_grad():
            np.testing.assert_allclose(result.run((x,))[0], module(x), atol=1e-5)
