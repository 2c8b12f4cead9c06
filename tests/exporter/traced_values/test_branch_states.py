"""States that a branch of an ``if`` on a value sets: in the file they are chosen, too, or the export is refused."""
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

from lstm_onnx import ExportError, InputError
from tests.exporter.helpers import X, made, signal

pytestmark = pytest.mark.sweep(18)

Forward = Callable[..., Any]
KEPT: list[Forward] = []


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.cell = nn.GRUCell(3, 4)
        self.register_buffer("scale", torch.ones(4))
        self.scales = [torch.ones(4)]
        self.level, self.pair, self.count = torch.zeros(4), (torch.zeros(4), torch.ones(4)), 0


def kept(forward: Forward) -> Forward:
    KEPT.append(forward)
    return forward


@kept
def an_attribute(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        self.level = y.mean((0, 1))
    return y + self.level


@kept
def a_tuple(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        self.pair = (self.pair[1], y.mean((0, 1)))
    return y + 2 * self.pair[0] - self.pair[1]


@kept
def a_buffer(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        self.scale.mul_(1.5)
    else:
        self.scale = self.scale - 0.25
    return y * self.scale


@kept
def a_counter(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        self.count += 1
    return y * self.count


@pytest.mark.parametrize("forward", KEPT)
def test_a_state_is_carried_where_its_branch_is_taken(forward: Any, tmp_path: Path) -> None:
    kind = type("Module", (Base,), {"forward": forward})
    result = made(kind(), [signal(2, 4)[0].abs()], X, tmp_path)
    assert result.model.states
    module, states = kind().eval(), {}
    for number in range(8):
        x = signal(2, 4 + number)[0] * (-1) ** (number // 2) + (number % 3 - 1) * 0.3
        found = result.model.run({"x": x.numpy(), **states})
        states = {name: found[after] for name, after in result.model.states.items()}
        with torch.no_grad():
            np.testing.assert_allclose(found["output"], module(x).numpy(), rtol=1e-4, atol=1e-5)


def in_place_elsewhere(self: Base, x: Tensor) -> Tensor:
    scale = self.scale
    y, _ = self.lstm(x)
    if x.sum() > 0:
        scale.mul_(1.5)
    return y * self.scale


def in_place(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        self.scale.mul_(1.5)
    return y * self.scale


def an_item(self: Base, x: Tensor) -> Tensor:
    y, _ = self.lstm(x)
    if x.sum() > 0:
        self.scales[0] = y.mean()
    return y * self.scales[0]


@pytest.mark.parametrize("forward", [an_attribute, a_tuple, a_counter, in_place_elsewhere, in_place, an_item])
def test_a_state_that_the_example_leaves_is_refused(forward: Any, tmp_path: Path) -> None:
    module = type("Module", (Base,), {"forward": forward})()
    with pytest.raises(ExportError, match="which the example inputs leave unchanged; pass"):
        made(module, [-signal(2, 4)[0].abs()], X, tmp_path)


class Stepped(Base):
    """A step that is only made where there is something to hear."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if x.abs().max() > 0.5:
            h = self.cell(x, h)
        return h * 2, h


def test_a_state_that_a_branch_leaves_as_it_is_streams(tmp_path: Path) -> None:
    axes = {"x": {0: "batch"}, "h": {0: "batch"}}
    module = Stepped()
    result = made(module, (torch.ones(2, 3), torch.zeros(2, 4)), axes, tmp_path)
    assert result.model.states == {"h": "output.1"}
    stream, h = result.model.stream(batch=1), torch.zeros(1, 4)
    for x in signal(1, 8)[0][0]:
        with torch.no_grad():
            wanted, h = module(x[None], h)
        np.testing.assert_allclose(stream(x[None].numpy()), wanted.numpy(), rtol=1e-5, atol=1e-6)


class Rare(Base):
    """A step that is silent for all sequences of the batch where one of them is very loud."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        if x.max() > 1e4:
            return x * 0, h
        return x * 2, h


class Cleaned(Base):
    """A step for which the condition makes no difference where there is no NaN."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        if x.isnan().any():
            x = torch.nan_to_num(x)
        return x * 2, self.cell(x, h)


class RareInALoop(Base):
    """Cells, in each of whose steps one sequence can silence all."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for step in range(x.shape[1]):
            h = self.cell(x[:, step], h)
            if x[:, step].max() > 1e4:
                h = h * 0
            found.append(h)
        return torch.stack(found, 1), h


def test_a_choice_in_the_body_of_a_loop_is_one(tmp_path: Path) -> None:
    axes = {"x": {0: "rows", 1: "time"}, "h": {0: "rows"}}
    exported = made(RareInALoop(), (torch.ones(2, 5, 3), torch.zeros(2, 4)), axes, tmp_path)
    assert "Scan" in exported.operators
    assert "depends on all sequences of a batch together" in (exported.model.metadata.batch_mixes or "")


@pytest.mark.parametrize("batch", ["batch", "rows"])
def test_streams_are_not_stepped_together_where_one_decides_for_all(batch: str, tmp_path: Path) -> None:
    axes = {"x": {0: batch}, "h": {0: batch}}
    example = torch.ones(2, 3), torch.zeros(2, 4)
    rare = made(Rare(), example, axes, tmp_path)
    assert any("a condition, at test_branch_states.py" in note for note in rare.exported.notes)
    with pytest.raises(InputError, match="depends on all sequences of a batch together"):
        rare.model.pool(slots=2)
    cleaned = made(Cleaned(), example, axes, tmp_path)
    assert cleaned.model.metadata.batch_mixes == ""
