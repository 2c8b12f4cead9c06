"""States that a forward writes by way of ``.data``, and those that it keeps elsewhere than in attributes."""

from __future__ import annotations

import functools
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.functional.attribute_states import AttributeSnapshot
from tests.exporter.helpers import agree, eager, made


class InData(nn.Module):
    h: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 4)
        self.register_buffer("h", torch.zeros(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.cell(x, self.h)
        self.h.data.copy_(h)
        return h


class InParameter(InData):
    def __init__(self) -> None:
        super().__init__()
        del self.h
        self.h = nn.Parameter(torch.zeros(2, 4), requires_grad=False)


class InClass(InData):
    state = torch.zeros(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        InClass.state = self.cell(x, InClass.state)
        return InClass.state


def test_what_is_written_by_way_of_data_is_a_state(tmp_path: Path) -> None:
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    model = made(InData().eval(), (x,), {"x": {0: "batch"}}, tmp_path).model
    assert model.states == {"h.h0": "h.hn"}
    module, h = InData().eval(), np.zeros((2, 4), np.float32)
    for _ in range(3):
        outputs = model.run({"x": x.numpy(), "h.h0": h})
        h = outputs.pop("h.hn")
        agree(list(outputs.values()), eager(module, (x,)))


@pytest.mark.parametrize("make", [InParameter, InClass])
def test_a_state_elsewhere_is_refused(make: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="a different output at its second call: it keeps something between calls that is"
    ):
        made(make(), (torch.randn(2, 3),), {"x": {0: "batch"}}, tmp_path)


class InViews(nn.Module):
    """What it remembers, and what it reads, are rows of one tensor."""

    def __init__(self, written: int, read: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)
        rows = torch.zeros(2, 4)
        self.written, self.read = rows[written], rows[read]

    def forward(self, x: Tensor) -> Tensor:
        self.written += 1
        y: Tensor = self.lstm(x)[0]
        return y + self.written.sum() + self.read.sum() * 10


def test_a_write_into_memory_that_two_attributes_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"self\.written shares its memory with another tensor that the module keeps"):
        made(InViews(1, 1), (torch.randn(5, 2, 3),), {"x": {0: "time"}}, tmp_path)


class InArray(nn.Module):
    """It writes into an array, and reads a tensor of its memory."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)
        numbers = np.ones(8, np.float32)
        self.written, self.read = numbers[start:], torch.from_numpy(numbers[:4])

    def forward(self, x: Tensor) -> Tensor:
        self.written[:] = 3
        y: Tensor = self.lstm(x)[0]
        return y * self.read


def test_a_write_into_the_memory_of_an_array_and_a_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="array of the module shares its memory with another tensor"):
        made(InArray(3), (torch.randn(5, 2, 3),), {"x": {0: "time"}}, tmp_path)


def test_other_numbers_of_an_array_may_be_written(tmp_path: Path) -> None:
    module, x = InArray(4), torch.randn(5, 2, 3)
    model = made(module, (x,), {"x": {0: "time"}}, tmp_path).model
    agree([model.run({"x": x.numpy()})["output"]], eager(module, (x,)))


def test_rows_of_one_tensor_share_no_memory(tmp_path: Path) -> None:
    module, x = InViews(0, 1), torch.randn(5, 2, 3)
    model = made(module, (x,), {"x": {0: "time"}}, tmp_path).model
    assert model.states == {"written.h0": "written.hn"}
    agree([model.run({"x": x.numpy()})["output"]], eager(module, (x,)))


def test_a_tensor_that_holds_nan_has_not_changed_for_that() -> None:
    module = InData()
    module.h.fill_(torch.nan)
    snapshot = AttributeSnapshot(module)
    assert snapshot.changed(module) == ()
    module.h.data[0] = 1
    assert [state.key[1] for state in snapshot.changed(module)] == [("h",)]


CALLS = 0


@functools.cache
def settings() -> dict[str, int]:
    return {"calls": 0}


class InAGlobal(nn.Module):
    """Counts its calls in a global variable."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def calls(self) -> int:
        global CALLS
        CALLS += 1
        return CALLS

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y * 2 if self.calls() > 20 else y


class InACache(InAGlobal):
    """Counts them in what a cached function returns."""

    def calls(self) -> int:
        settings()["calls"] += 1
        return settings()["calls"]


@pytest.mark.parametrize("kind", [InAGlobal, InACache])
def test_calls_that_are_counted_outside_of_the_module_are_refused(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"output depends on what earlier calls left in a (global|dict)"):
        made(kind(), (torch.randn(2, 5, 3),), {"x": {0: "batch", 1: "time"}}, tmp_path)
    assert CALLS == 0


class InItsClass(InAGlobal):
    count = 0

    def calls(self) -> int:
        InItsClass.count += 1
        return InItsClass.count


class InItsFunction(InAGlobal):
    def calls(self) -> int:
        return counted()


def counted() -> int:
    calls: int = getattr(counted, "count", 0) + 1
    counted.count = calls  # type: ignore[attr-defined]
    return calls


class Meta(type):
    count = 0


class Kind(metaclass=Meta):
    pass


class InAMetaclass(InAGlobal):
    def calls(self) -> int:
        setattr(Meta, "count", Kind.count + 1)  # noqa: B010
        return Kind.count


class InAThread(InAGlobal):
    def calls(self) -> int:
        held = HELD
        held.count = getattr(held, "count", 0) + 1
        count: int = held.count
        return count


HELD = threading.local()


class InAModule(InAGlobal):
    """Of Python's."""

    def calls(self) -> int:
        MODULE.count += 1
        count: int = MODULE.count
        return count


MODULE: Any = types.ModuleType("counts")
MODULE.count = 0


@pytest.mark.parametrize(
    ("kind", "owner"),
    [(InItsClass, InItsClass), (InItsFunction, counted), (InAMetaclass, Meta), (InAThread, HELD), (InAModule, MODULE)],
)
def test_calls_that_are_counted_in_what_a_copy_shares_are_refused(kind: Any, owner: Any, tmp_path: Path) -> None:
    name = getattr(owner, "__name__", "_local")
    with pytest.raises(ExportError, match=rf"output depends on what earlier calls left in {name}\.count,"):
        made(kind(), (torch.randn(2, 5, 3),), {"x": {0: "batch", 1: "time"}}, tmp_path)
    assert getattr(owner, "count", 0) == 0
