"""The numbers of constants are those of PyTorch, and never of an input."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.traced_values.constants import Constants
from lstm_onnx.exporter.traced_values.each_number import EachNumber
from tests.exporter.helpers import X, made, right, signal

pytestmark = pytest.mark.sweep(9)


class Base(nn.Module):
    dims: Tensor

    def __init__(self, forward: Callable[[Base, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.register_buffer("dims", torch.tensor([1, 2]))
        self.gain = nn.Parameter(torch.tensor(3.0))
        self.table = torch.tensor([2, 0, 1])
        self.call = forward

    def forward(self, x: Tensor) -> Any:
        return self.call(self, self.lstm(x)[0])


def changed(_: Base, y: Tensor) -> Tensor:
    """Written into, also through a view of it."""
    order = torch.zeros(4, dtype=torch.int64)
    order[1:3] = torch.tensor([3, 1])
    order[2] += 1
    return y[..., order.tolist()]


def branch(self: Base, y: Tensor) -> Tensor:
    if self.gain > 2 and bool((self.dims == 2).any()):
        y = y * 2
    return y if self.dims.sum() > 5 else y + 1


def loop(self: Base, y: Tensor) -> Tensor:
    for factor in self.dims:
        y = y * factor
    for addend in self.table.tolist():
        y = y + addend
    return y


def of_a_size(_: Base, y: Tensor) -> Any:
    steps, features = torch.tensor(y.shape[1:]).tolist()
    return y / torch.tensor(y.shape[1]).item(), y.reshape(-1, steps * features)


CASES: dict[str, Callable[[Base, Tensor], Any]] = {
    "a range": lambda _, y: y - y.mean(dim=torch.arange(1, len(y.shape)).tolist(), keepdim=True),
    "a buffer": lambda self, y: y.sum(self.dims.tolist()),
    "an attribute": lambda self, y: y[..., self.table.tolist()],
    "int, float and item": lambda self, y: y[..., : int(self.dims[1])] * float(self.gain) + self.gain.item(),
    "computed": lambda self, y: y[..., : (self.dims * 2).float().mean().long().item()],
    "an index": lambda self, y: y.select(2, self.dims.argmax().item()),
    "numpy": lambda self, y: y * float(np.mean(self.dims.cpu().numpy())) + int(self.dims.numpy().sum()),
    "a mask": lambda _, y: y[..., torch.arange(4)[torch.arange(4) % 2 == 1]],
    "nonzero": lambda self, y: y[..., (self.dims > 1).nonzero().flatten()],
    "contained": lambda self, y: y * 2 if 2 in self.dims else y,
    "written into": changed,
    "a branch": branch,
    "a loop": loop,
    "a size": of_a_size,
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_of_constants(case: str, tmp_path: Path) -> None:
    right(Base(CASES[case]), signal, X, tmp_path)


def mixed(_: Base, y: Tensor) -> Tensor:
    """A constant until an input is written into it."""
    number = torch.zeros(2)
    view = number[:1]
    number[0] = y.sum()
    return y * view.item()


def test_numbers_that_an_input_is_written_into_are_not_known(tmp_path: Path) -> None:
    right(Base(mixed), signal, X, tmp_path, tolerance=1e-4)

    def sized(_: Base, y: Tensor) -> Tensor:
        number = torch.zeros(2, dtype=torch.int64)
        view = number[:1]
        number[0] = y.abs().sum().long()
        return y[:, : view.tolist()[0] + 1] if bool(view > 0) else y

    with pytest.raises(ExportError, match="the code has an if on the numbers in a tensor"):
        made(Base(sized), signal(2, 4), X, tmp_path)


def test_random_numbers_are_not_drawn_beside_the_trace(tmp_path: Path) -> None:
    """Nor does a trace change the caller's generator."""
    drawing = Base(lambda _, y: y * torch.rand(1).item())
    reading = Base(lambda self, y: y * self.gain.item())
    inputs = signal(2, 4)
    before = torch.get_rng_state()
    with pytest.raises(ExportError, match="draws random numbers in eval mode"):
        made(drawing, inputs, X, tmp_path)
    made(reading, inputs, X, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_all_rows_are_not_known() -> None:
    lengths = EachNumber(torch.tensor([3, 2]))
    assert Constants(nn.Linear(1, 1)).read(torch.arange, (lengths - 1, -1, -1), {}) is None


def diagonal(_: Base, y: Tensor) -> Tensor:
    square = torch.zeros(4, 4)
    square.fill_diagonal_(2.0)
    return y * square.sum().item()


def of_data(_: Base, y: Tensor) -> Tensor:
    four = torch.zeros(4)
    four.data.add_(2)
    return y * four.sum().item()


@pytest.mark.parametrize("forward", [diagonal, of_data])
def test_numbers_are_those_after_a_write_by_another_way(forward: Any, tmp_path: Path) -> None:
    right(Base(forward), signal, X, tmp_path, tolerance=1e-4)


def test_a_write_into_a_constants_array_is_refused(tmp_path: Path) -> None:
    def written(_: Base, y: Tensor) -> Tensor:
        four = torch.zeros(4)
        four.numpy()[0] = 5
        return y + four * (y.max() > 8)

    with pytest.raises(ExportError, match="assignment destination is read-only"):
        made(Base(written), signal(2, 4), X, tmp_path)
