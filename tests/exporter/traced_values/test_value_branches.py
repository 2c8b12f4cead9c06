"""An ``if`` on a value: both branches are in the file, which chooses by the value, or the export is refused."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X, eager, made, signal

pytestmark = pytest.mark.sweep(18)

Forward = Callable[..., Any]
CHOSEN: list[Forward] = []
REFUSED: list[tuple[Forward, str]] = []


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.seen: list[int] = []

    def noted(self, y: Tensor) -> Tensor:
        self.seen.append(1)
        return y


def chosen(forward: Forward) -> Forward:
    CHOSEN.append(forward)
    return forward


def refused(reason: str) -> Callable[[Forward], Forward]:
    def add(forward: Forward) -> Forward:
        REFUSED.append((forward, reason))
        return forward

    return add


@chosen
def cleaned(self: Base, x: Tensor) -> Tensor:
    if torch.isnan(x).any() or not (x.abs() < 2).all():
        print("not numbers", x)
        x = torch.nan_to_num(x, 0.0, 1.0, -1.0)
    return self.lstm(x)[0]


@chosen
def masked(self: Base, x: Tensor) -> Tensor:
    missing = torch.isnan(x)
    if missing.any():
        x = x.masked_fill(missing, 0.0)
    y = self.lstm(x)[0]
    if (y < 0).sum() > 0:
        y[y < 0] = 0.5
    return y


@chosen
def more_than_masked(self: Base, x: Tensor) -> Tensor:
    missing = torch.nan_to_num(x).sum(-1, keepdim=True) > -2
    y = self.lstm(torch.nan_to_num(x))[0]
    if missing.any():
        y += y.masked_fill(missing, 0.0)
    return y


@chosen
def divided(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(torch.nan_to_num(x))[0]
    count = (y > 0).sum()
    if count == 0:
        return torch.zeros_like(y)
    return y / count


@chosen
def of_an_item(self: Base, x: Tensor) -> Tensor:
    x = torch.nan_to_num(x)
    largest = x.max().item()
    if largest > 1 and x.min().item() < -0.5:
        x = x / 2
    return self.lstm(x)[0]


@chosen
def with_else(self: Base, x: Tensor) -> tuple[Tensor, Tensor]:
    y, (h, c) = self.lstm(torch.nan_to_num(x))
    if y.sum() > 0.5:
        y, (h, c) = self.head(y), (c, h)
    elif y.sum() > 0:
        assert (y < 100).all()
        y = F.softplus(y)
    if y.mean() > 0.7:
        y = -y
    return y, h


@chosen
def in_place(self: Base, x: Tensor) -> Tensor:
    z = y = self.lstm(torch.nan_to_num(x))[0]
    if y.sum() > 0:
        y *= 2
        y += 1
    else:
        y.clamp_(max=0.1)
    if y.mean() > 0.3:
        torch.tanh_(y)
    return z


@chosen
def conditional(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(torch.nan_to_num(x))[0]
    return y.flip(0) if y.mean() > 0 else -y


@chosen
def written_through_a_view(self: Base, x: Tensor) -> Tensor:
    x = torch.nan_to_num(x)
    first = x[:, 0]
    if x.sum() > 0:
        first[:, :2] = 5
    return self.lstm(x)[0]


@chosen
def in_a_loop(self: Base, x: Tensor) -> Tensor:
    x = torch.nan_to_num(x)
    h, outputs = x.new_zeros(x.shape[0], 4), []
    for t in range(x.shape[1]):
        h = self.cell(x[:, t], h)
        if (h > 0.3).any():
            h = h * 0.5
        outputs.append(h)
    return torch.stack(outputs, 1)


def scaled(y: Tensor, by: float = 2.0) -> Tensor:
    if y.max() > 0.2:
        y = y / by
    return y


@chosen
def in_a_function(self: Base, x: Tensor) -> Tensor:
    return scaled(self.lstm(torch.nan_to_num(x))[0])


@chosen
def unread(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(torch.nan_to_num(x))
    if y.sum() > 0.2:
        _, steps, _ = y.shape
        y = y / steps
    return y


@chosen
def read_before(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(torch.nan_to_num(x))[0]
    part = y[:, :1]
    y = y + part
    if y.sum() > 0.2:
        part = y[:, 0, 0].abs() + 1
        y = y / part[:, None, None]
    return y


@refused("different shape or dtype")
def read_later(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    part = y[:, :1]

    def scaled_by(z: Tensor) -> Tensor:
        return z + part

    if y.sum() > 0.2:
        part = y[:, :1, :1]
        y = y * part
    return scaled_by(y)


@chosen
def decorated(self: Base, x: Tensor) -> Tensor:
    @functools.wraps(decorated)
    def forward(y: Tensor) -> Tensor:
        return scaled(y, 3.0)

    return forward(self.lstm(torch.nan_to_num(x))[0])


@pytest.mark.filterwarnings("ignore:.* has a NaN or an infinity")
@pytest.mark.parametrize("forward", CHOSEN)
def test_each_value_takes_its_branch(forward: Any, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    result = made(module, signal(2, 4), X, tmp_path)
    for batch, time in ((2, 4), (1, 1), (1, 6), (3, 2)):
        (x,) = signal(batch, time)
        holes = torch.where(x > 0.9, torch.nan, x)
        for values in (x, -x, holes, 0.1 * x, 3 * x, x * 0, x + 3, x - 3):
            wanted = eager(module, (values.clone(),))
            for own, right in zip(result.run((values.clone(),)), wanted, strict=True):
                np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-5)


def test_what_a_mask_selects_needs_no_choice_and_streams(tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": masked})()
    result = made(module, signal(2, 4), X, tmp_path, states="explicit")
    assert not {operator for operator in result.operators if operator.startswith("Reduce")}
    (x,) = signal(2, 9)
    stream = result.model.stream(batch=2)
    pieces = np.concatenate([stream(x[:, :4].numpy()), stream(x[:, 4:].numpy())], 1)
    np.testing.assert_allclose(pieces, eager(module, (x,))[0], rtol=1e-4, atol=1e-6)


@refused("calls Base.noted, which may do more")
def with_a_call(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    if y.sum() > 0:
        y = self.noted(y) * 2
    return y


@refused("different shape or dtype")
def of_another_dtype(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    if y.sum() > 0:
        y = y > 0
    return y


@refused("write both as floats")
def of_numbers_of_two_kinds(self: Base, x: Tensor) -> Tensor:
    factor = 1
    if x.sum() > 0:
        factor = 0.5
    return self.lstm(x)[0] * factor


@refused("may fail where the branch is not taken")
def with_an_index(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    last = (x[:, :, 0] > 0).sum(1) - 1
    z = y[:, 0]
    if (last >= 0).all():
        z = y[torch.arange(x.shape[0]), last]
    return z


@refused("divides integers")
def with_a_division(self: Base, x: Tensor) -> Tensor:
    count, whole = (x > 1).sum(), torch.tensor(100)
    if count > 0:
        whole = whole // count
    return self.lstm(x)[0] * whole


@refused("written in place later")
def written_later(self: Base, x: Tensor) -> Tensor:
    y = z = self.lstm(x)[0]
    if y.sum() > 0:
        y = y * 2
    y[:, 0] = 5
    return z


@refused("which shares its memory with y")
def read_by_another_name(self: Base, x: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    first, z = y[:, 0], y[:, 0] * 0
    if y.sum() > 0:
        first[:, :2] = 5
        z = y[:, 0] * 2
    return z


@refused("sets self.last, which does not exist before the if")
def with_an_attribute(self: Base, x: Tensor) -> Tensor:
    if x.sum() > 0:
        self.last = x.sum()
    return self.lstm(x)[0]


@refused("depends on the numbers in a tensor")
def with_a_loop(self: Base, x: Tensor) -> Tensor:
    while x.abs().max() > 1:
        x = x / 2
    return self.lstm(x)[0]


@pytest.mark.parametrize(("forward", "reason"), REFUSED)
def test_other_effects_are_refused(forward: Any, reason: str, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    code = forward.__code__
    with pytest.raises(ExportError, match=f"at test_value_branches.py:[0-9]+: .*{reason}"):
        made(module, signal(2, 4), X, tmp_path)
    assert forward.__code__ is code


def test_the_module_verifies(tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": of_an_item})()
    made(module, signal(2, 4), X, tmp_path)
    assert lstm_onnx.verify(module, tmp_path / "made.onnx", mutants="none")
