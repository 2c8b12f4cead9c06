"""What calls change in other objects than lists and numbers: an output that depends on it is refused."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import array
import collections
import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError

pytestmark = pytest.mark.sweep(9)
LATER = 60
"""A call at which nobody looks."""


@dataclasses.dataclass(slots=True)
class Slots:
    calls: int = 0


class Named(dict[str, int]):
    calls = 0


class Plain:
    calls = 0


class Remembering(nn.Module):
    def __init__(self, held: Any, factor: Callable[[Any], float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.held, self.factor = nn.LSTM(3, 4, batch_first=True), held, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] * self.factor(self.held)


def first_of_a_round(held: collections.OrderedDict[str, int]) -> float:
    held.move_to_end(next(iter(held)))
    return next(iter(held.values()))


def calls(held: Slots | Named | Plain) -> float:
    held.calls += 1
    return 2 if held.calls > LATER else 1


def array_of_calls(held: np.ndarray) -> float:
    held += 1
    return 2 if held[0] > LATER else 1


def length(held: array.array[int]) -> float:
    held.append(1)
    return len(held)


@pytest.mark.parametrize(
    ("held", "factor", "where"),
    [
        (collections.OrderedDict(a=1, b=2, c=3), first_of_a_round, "self.held"),
        (collections.deque([1, 2, 3]), lambda held: (held.rotate(1), held[0])[1], "self.held"),
        ([1, 2, 3], lambda held: (held.reverse(), held[0])[1], "self.held"),
        (Slots(), calls, "self.held.calls"),
        (Named(), calls, "self.held.calls"),
        (Plain(), calls, "self.held.calls"),
        (np.zeros(2, np.int8), array_of_calls, "self.held"),
        (array.array("q", [1]), length, "self.held"),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_dependence_is_refused_by_its_place(held: Any, factor: Any, where: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"output depends on what earlier calls left in {where}, which"):
        lstm_onnx.export(Remembering(held, factor).eval(), tmp_path / "m.onnx", example_inputs=(torch.zeros(2, 5, 3),))


@pytest.mark.parametrize(
    ("held", "factor"),
    [
        (random.Random(0), lambda held: held.random()),  # noqa: S311
        (np.random.default_rng(0), lambda held: held.normal()),
        (np.random.RandomState(0), lambda held: held.rand()),
    ],
    ids=lambda item: type(item).__name__,
)
def test_a_generator_of_ones_own_is_named_as_random(held: Any, factor: Any, tmp_path: Path) -> None:
    module = Remembering(held, factor).eval()
    with pytest.raises(ExportError, match="the forward draws random numbers in eval mode"):
        lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=(torch.zeros(2, 5, 3),))
