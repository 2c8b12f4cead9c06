"""What `item()` gives is compared as PyTorch compares it: True equals 1, and NaN not even itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, made


class Asking(nn.Module):
    """Its mean reaches no LSTM, in which a NaN would vanish."""

    def __init__(self, ask: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        return self.ask(self.lstm(x.nan_to_num())[0], x.mean())


def equal_to_true(y: Tensor, mean: Tensor) -> Tensor:
    if (mean > 0).item() == True:  # noqa: E712 - as people write it
        y = y * 2
    return y


def equal_to_one(y: Tensor, mean: Tensor) -> Tensor:
    if (mean.item() > 0) == 1:
        y = y * 2
    return y


def not_equal_to_zero(y: Tensor, mean: Tensor) -> Tensor:
    positive = mean.item() > 0
    if positive != 0:
        y = y * 2
    return y


def equal_to_zero(y: Tensor, mean: Tensor) -> Tensor:
    if (mean.item() > 0) == 0:
        y = y * 2
    return y


def nan_by_itself(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    if number != number:
        return y * 0
    return y


def factor_by_itself(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    return y * (number == number)


def below_infinity(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    if number < math.inf:
        y = y * 2
    return y


def at_least_itself(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    if number >= number:
        y = y * 2
    return y


def minus_itself(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    return y + (number - number)


def times_zero(y: Tensor, mean: Tensor) -> Tensor:
    return y + mean.item() * 0


def back_again(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    return y + (1 + number - number)


def as_numbers(y: Tensor, mean: Tensor) -> Tensor:
    number = mean.item()
    return y * ((number > 0) + (number > 0.1)) + 2.5 * (number < 0.6) - (1 - (number > 0.3))


ASKS = [
    *(equal_to_true, equal_to_one, not_equal_to_zero, equal_to_zero),
    *(nan_by_itself, factor_by_itself, below_infinity, at_least_itself),
    *(minus_itself, times_zero, back_again, as_numbers),
]


@pytest.mark.sweep(4)
@pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("ask", ASKS)
def test_pytorchs_comparisons(ask: Callable[[Tensor, Tensor], Tensor], sign: float, tmp_path: Path) -> None:
    module, example = Asking(ask).eval(), sign * torch.rand(2, 4, 3)
    model = made(module, (example,), {"x": BATCH_TIME}, tmp_path).model
    for x in (example, -example, torch.where(example.abs() > 0.9, math.nan, example), example / 0):
        with torch.no_grad():
            np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], module(x), atol=1e-6)
