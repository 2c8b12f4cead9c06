"""States in objects of the user's own classes that a module holds: each call of the file is a call of the module."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError

pytestmark = pytest.mark.sweep(9)

FEATURES, HIDDEN = 3, 4


class History:
    """Made when the first frame comes."""

    def __init__(self) -> None:
        self.frames: Any = None

    def push(self, x: Tensor) -> Tensor:
        if self.frames is None:
            self.frames = x.new_zeros(x.shape[0], 5, FEATURES)
        self.frames = torch.cat([self.frames[:, 1:], x[:, None]], 1)
        return self.frames


class Delay:
    """A ring with a place."""

    def __init__(self, length: int) -> None:
        self.ring, self.place = torch.zeros(length, 1, FEATURES), 0

    def push(self, x: Tensor) -> Tensor:
        old = self.ring[self.place].clone()
        self.ring[self.place] = x
        self.place = (self.place + 1) % len(self.ring)
        return old


@dataclass
class Memory:
    hidden: Tensor
    total: Tensor


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(FEATURES, FEATURES)


class Helper(Base):
    def __init__(self) -> None:
        super().__init__()
        self.history = History()

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, self.history.push(x).mean(1))


class Listed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.delays, self.more = [Delay(2)], {"long": Delay(3)}

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, self.delays[0].push(x) - self.more["long"].push(x))


class Replaced(Base):
    """With a new object after each call."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(torch.full((1, FEATURES), 0.5), torch.zeros(1, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.cell(x, self.memory.hidden)
        self.memory = Memory(hidden, self.memory.total + hidden)
        return self.memory.total


class Part(nn.Module):
    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory, self.cell = memory, nn.GRUCell(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        self.memory.hidden = self.cell(x, self.memory.hidden)
        return self.memory.hidden


class Shared(nn.Module):
    """Two submodules with one memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        memory = Memory(torch.zeros(1, FEATURES), torch.zeros(1, FEATURES))
        self.first, self.second = Part(memory), Part(memory)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


OBJECTS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "helper": (Helper, {"history.frames.h0"}),
    "in a list and a dict": (
        Listed,
        {"delays.0.ring.h0", "delays.0.place.h0", "more.long.ring.h0", "more.long.place.h0"},
    ),
    "replaced": (Replaced, {"memory.hidden.h0", "memory.total.h0"}),
    "shared": (Shared, {"first.memory.hidden.h0"}),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_each_step_of_a_stream_is_a_call_of_the_module(case: str, tmp_path: Path) -> None:
    make, names = OBJECTS[case]
    module, path = make().eval(), tmp_path / "object.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(1, FEATURES))
    own = copy.deepcopy(module)
    with lstm_onnx.load(path, provider="cpu", threads=1) as model, torch.no_grad():
        assert set(model.states) == names
        stream = model.stream()
        for x in torch.randn(40, 1, FEATURES):
            np.testing.assert_allclose(stream(x.numpy()), own(x), rtol=1e-4, atol=1e-5)
    assert lstm_onnx.verify(module, path, mutants="none")
    assert not vars(module).get("history") or module.history.frames is None  # type: ignore[union-attr]


class Slots:
    __slots__ = ("hidden",)

    def __init__(self) -> None:
        self.hidden = torch.zeros(1, FEATURES)


class Slotted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.memory = Slots()

    def forward(self, x: Tensor) -> Tensor:
        self.memory.hidden = self.cell(x, self.memory.hidden)
        return self.memory.hidden


def test_an_object_without_a_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="pass the state as an argument of forward"):
        lstm_onnx.export(Slotted().eval(), tmp_path / "no.onnx", example_inputs=torch.randn(1, FEATURES))
