"""Modules whose forward is given, for the tests of axis limits."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

Dim = torch.export.Dim
Forward = Callable[[Any, Tensor], Any]


class Double(nn.Module):
    """Decides by a size, below the module that is exported."""

    def forward(self, out: Tensor) -> Tensor:
        return out * 2 if out.shape[1] > 20 else out


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.conv = nn.Conv1d(3, 3, 5)
        self.strided = nn.Conv1d(3, 3, 4, stride=3)
        self.louder = Double()
        self.config = {"longest": 20, "total": 700}
        self.position = nn.Parameter(torch.randn(16, 4))


def module(forward: Forward) -> nn.Module:
    made_module: nn.Module = type("Module", (Base,), {"forward": forward})().eval()
    return made_module


# Below some size another way, or none at all: kept, with that size as the least.


def under_a_size(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) < 3 else out


def reflected(self: Any, x: Tensor) -> Tensor:
    """Pads as EnCodec does, which has a way of its own for what is too short to be reflected."""
    x, extra = x.transpose(1, 2), 0
    if x.shape[-1] <= 6:
        extra = 6 - x.shape[-1] + 1
        x = F.pad(x, (0, extra))
    x = F.pad(x, (6, 2), "reflect")
    return self.lstm(x[..., : x.shape[-1] - extra].transpose(1, 2))[0]


def strided(self: Any, x: Tensor) -> Tensor:
    return self.gru(F.gelu(self.strided(x.transpose(1, 2))).transpose(1, 2))[0]


def first_steps_left_out(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, 2:])[0]


# Limits that are asked for.


def both_ends(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.shape[1] > 40 or x.shape[1] < 5 else out
