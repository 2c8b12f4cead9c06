"""Functions over all entries up to each: PyTorch's numbers, and in streams too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import Made, X, agree, eager, made, right, signal

pytestmark = pytest.mark.sweep(3)


class Cumulative(nn.Module):
    """Over the steps, and over the features of each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        whole = x.clamp(-9, 9).round().long()
        return (
            *(torch.logcumsumexp(x, 1), torch.logcumsumexp(x.half(), -1), torch.logcumsumexp(x[0, 0, 0], 0)),
            *(torch.cumprod(x, 1), torch.cumprod(whole, -1), torch.cumprod(x, 2, dtype=torch.float64)),
            *(*torch.cummax(x, 1), *torch.cummin(x, -1), *torch.cummax(whole, -1), *torch.cummin(whole, 1)),
            self.lstm(x)[0],
        )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(Cumulative(), (torch.rand(2, 5, 3),), {"x": X["x"]}, tmp_path_factory.mktemp("cumulative"))


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (3, 40)])
def test_pytorchs_numbers(size: tuple[int, int], scale: float, file: Made) -> None:
    """Also of logarithms so far apart that the smaller are nothing beside the largest of all."""
    x = torch.randn(*size, 3, generator=torch.Generator().manual_seed(1)) * scale
    x = torch.where(x.abs() > scale, x.round(), x)  # some are equal
    found, expected = file.run((x,)), eager(Cumulative(), (x,))
    for actual, wanted in zip(found[:-1], expected, strict=False):
        assert actual.dtype == wanted.dtype
        np.testing.assert_allclose(actual, wanted, rtol=2e-3 if wanted.dtype == np.float16 else 1e-5, atol=1e-6)


def test_products_come_back_from_beyond_float32(file: Made) -> None:
    rows = [[1e30, 1e-30, 2.0], [1e30, 1e-30, 2.0], [1e-30, 1e30, 0.5], [1e-30, 1e30, 0.5]]
    x = torch.tensor([rows])
    np.testing.assert_allclose(file.run((x,))[3], x.cumprod(1), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*has a NaN or an infinity")  # its LSTM reads them, too
def test_nan_and_infinities(file: Made) -> None:
    """A largest number is NaN once there is one, and its place that of the last one."""
    numbers = [-math.inf, -math.inf, 1.0, math.inf, 2.0, math.nan, 3.0, math.nan, math.inf]
    x = torch.tensor(numbers)[None, :, None].expand(1, 9, 3)
    expected = eager(Cumulative(), (x,))
    found = file.run((x,))
    for place in (0, 1, 3, 5, 6, 7, 8, 9):  # what NaN is as an integer, C leaves open
        np.testing.assert_allclose(found[place], expected[place], rtol=1e-6, err_msg=str(place))


def test_a_stream_goes_on_where_the_chunk_before_ended(tmp_path: Path) -> None:
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.lstm(x)[0]
            return torch.logcumsumexp(y * 90, 1) + torch.cumprod(y + 1, 1) + torch.cummax(y, 1).values

    module, x = Running(), torch.randn(2, 9, 3)
    stream = made(module, (x,), {"x": X["x"]}, tmp_path, states="explicit").model.stream(batch=2)
    pieces = [stream(x[:, start:end].numpy()) for start, end in ((0, 4), (4, 5), (5, 9))]
    agree([np.concatenate(pieces, 1)], eager(module, (x,)))


class Allocation(nn.Module):
    """How a differentiable neural computer shares out its rows: the least used first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        usage, order = torch.sort(self.lstm(x)[0].sigmoid(), dim=-1, stable=True)
        free = torch.cumprod(torch.cat([torch.ones_like(usage[..., :1]), usage], -1), -1)[..., :-1]
        whole = torch.round(x * 2).long().clamp(-1, 1)
        return (
            ((1 - usage) * free).gather(-1, order.argsort(-1)),
            x.cumprod(1),
            (x > 0).cumprod(-1),
            whole.int().cumprod(0),
            whole.cumprod(1, dtype=torch.float32),
            x.prod(1),
            whole.prod(-1, keepdim=True),
        )


def test_cumulative_products_are_those_of_pytorch(tmp_path: Path) -> None:
    right(Allocation(), signal, X, tmp_path)
