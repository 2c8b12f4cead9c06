"""The list of cases, and the module that most of them start from."""
# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CASES: dict[str, Callable[[], nn.Module]] = {}
LOG: list[Any] = []
TOTALS = {"calls": 0}
SCALE = torch.tensor(0.5)


def case(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    CASES[make.__name__.strip("_").replace("_", " ")] = make
    return make


class Net(nn.Module):
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])
