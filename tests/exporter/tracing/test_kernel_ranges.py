"""Operators with kernels that are right for some numbers alone are written with others where it can show."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, Made, X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(3)

WHOLE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda i: i.clamp(-2, 3),
    "clamp from below": lambda i: i.clamp(min=-2),
    "clamp from above": lambda i: i.clamp(max=2**33),
    "maximum": lambda i: torch.maximum(i, i.flip(1)),
    "minimum": lambda i: torch.minimum(i, i.flip(1)),
    "relu": lambda i: i.relu(),
    "sign": lambda i: i.sign(),
    "since the first": lambda i: i - i.amin(1, keepdim=True),
    "largest": lambda i: i.amax((0, 1)),
    "smallest": lambda i: i.min(),
}
NUMBERS = (2**31, -(2**31) - 1, 5, -9, 2**40 + 3, 2**31 - 1, 7, 0, 1_700_000_123_456, -(2**40))


class Times(nn.Module):
    """Whole numbers beside an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(1, 2, batch_first=True)

    def forward(self, i: Tensor) -> dict[str, Tensor]:
        found = {name: function(i) for name, function in WHOLE.items()}
        return {"y": self.lstm(i.unsqueeze(-1).float() * 1e-3)[0], **found}


@pytest.fixture(scope="module")
def times(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(Times(), (torch.arange(10).view(2, 5),), {"i": BATCH_TIME}, tmp_path_factory.mktemp("times"))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_past_32_bits_are_compared_whole(name: str, times: Made) -> None:
    place = 1 + list(WHOLE).index(name)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        i = torch.from_numpy(rng.choice(NUMBERS, (3, 9 + seed)))
        np.testing.assert_array_equal(times.run((i,))[place], WHOLE[name](i).numpy())


class Gates(nn.Module):
    """Sigmoids in a logarithm, in a divisor, and as a gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y, weights = self.lstm(x)[0], torch.sigmoid(x)
        return (
            torch.log(weights),
            weights / weights.sum(-1, keepdim=True),
            y * torch.sigmoid(y),
            torch.log(weights + 1e-9),
        )


def test_sigmoids_that_are_magnified_are_exact(tmp_path: Path) -> None:
    file = made(Gates(), signal(2, 4), X, tmp_path)
    x = torch.linspace(-87, 87, 3 * 64).view(1, 64, 3)
    expected = eager(Gates(), (x,))
    for actual, right in zip(file.run((x,)), expected, strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-5, atol=1e-6)
    assert expected[0].min() < -86  # the kernel gives -inf
    assert file.operators.count("Sigmoid") == 1  # the gate


class Roots(Gates):
    """Gates that are divided by their sum, roots, and a square with a sum that is not small."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y = self.lstm(x)[0]
        forget, take = torch.sigmoid(x), torch.sigmoid(x.roll(1, -1) * 0.9)
        return (
            forget / (forget + take),
            torch.sigmoid(x + 0.5).sqrt(),
            torch.sigmoid(x - 0.5) ** 0.3,
            1 / (torch.sigmoid(y).square() + torch.exp(y)),
        )


def test_sigmoids_in_sums_and_roots_are_exact(tmp_path: Path) -> None:
    file = made(Roots(), signal(2, 4), X, tmp_path)
    x = torch.linspace(-80, 80, 3 * 64).view(1, 64, 3)
    for actual, right in zip(file.run((x,)), eager(Roots(), (x,)), strict=True):
        np.testing.assert_allclose(actual, right, rtol=1e-5, atol=1e-6)
    assert file.operators.count("Sigmoid") == 1  # of the square


def test_lengths_keep_their_operators(tmp_path: Path) -> None:
    class Lengths(Gates):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
            last = lengths.clamp(min=1) - 1
            return self.lstm(x)[0][torch.arange(x.size(0)), last]

    shapes = {**X, "lengths": {0: "batch"}}
    file = made(Lengths(), (*signal(2, 4), torch.tensor([4, 2])), shapes, tmp_path)
    assert "Where" not in file.operators


REDUCED: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda rows: rows.sum(-1),
    "mean, kept": lambda rows: rows.mean(-1, keepdim=True),
    "largest": lambda rows: rows.amax(-1),
    "where largest": lambda rows: rows.argmax(-1),
    "softmax of squares": lambda rows: torch.softmax(rows.square(), -1).sum(-1),
}


class Chosen(nn.Module):
    """Steps that are chosen by their numbers: perhaps none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.lstm(x)[0]
        rows = y[x[..., 0] > 0]
        return {"y": y, "all": y.sum(-1), **{name: function(rows) for name, function in REDUCED.items()}}


@pytest.mark.parametrize("opset", [14, 18])
def test_rows_of_which_there_are_none_are_reduced(opset: int, tmp_path: Path) -> None:
    module = Chosen()
    file = made(module, signal(2, 6), X, tmp_path, opset=opset)
    (x,) = signal(2, 5)
    agree(file.run((x,)), eager(module, (x,)))
    agree(file.run((-x.abs(),)), eager(module, (-x.abs(),)))


class OfANumber(nn.Module):
    """Reductions along the axis that PyTorch lets a tensor without axes have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0]
        total = y.sum()
        return y, total.amax(0), total.amin(-1, keepdim=True), (total > 0).all(0), nn.functional.normalize(total, dim=0)


def test_a_number_without_axes_is_reduced(tmp_path: Path) -> None:
    module = OfANumber()
    agree(made(module, signal(2, 6), X, tmp_path).run(signal(3, 5)), eager(module, signal(3, 5)))


class Quotients(nn.Module):
    """Whole numbers divided by others, which may be -1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(1, 2, batch_first=True)

    def forward(self, i: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(i.unsqueeze(-1).float() * 1e-3)[0]
        short, by = i.int(), n.int()
        truncated = torch.div(i + 1, n, rounding_mode="trunc")
        return y, i // n, i % n, i.fmod(n), i.fmod(5), truncated, short // by, i // 8


def test_the_smallest_number_is_divided_by_minus_one(tmp_path: Path) -> None:
    """ONNX Runtime's kernels end the process there; a remainder is not rounded."""
    arguments = (torch.arange(10).view(2, 5), torch.tensor([[3], [2]]))
    file = made(Quotients(), arguments, {"i": BATCH_TIME, "n": {0: BATCH_TIME[0]}}, tmp_path)
    i = torch.tensor([[-(2**63), -(2**31), -7, 7, 2**63 - 2]] * 4)
    n = torch.tensor([[-1], [1], [-3], [2]])
    for found, expected in zip(file.run((i, n))[1:], eager(Quotients(), (i, n))[1:], strict=True):
        np.testing.assert_array_equal(found, expected)
