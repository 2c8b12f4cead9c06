"""Assignments: rows of a state that start again, steps that are padding, one feature of all steps."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, agree, eager, made, right

pytestmark = pytest.mark.sweep(18)

SHAPES = {"x": BATCH_TIME, "done": {0: "batch"}}


def inputs(batch: int, time: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, time, 3, generator=torch.Generator().manual_seed(batch * 10 + time))
    return x, torch.arange(batch) % 2 == 0


class Masked(nn.Module):
    """A GRU, and what is assigned to its output by `done` (batch,), true for the first of two sequences."""

    def __init__(self, assign: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.assign = nn.GRU(3, 4, batch_first=True), assign

    def forward(self, x: Tensor, done: Tensor) -> Tensor:
        y = self.gru(x)[0].clone()
        self.assign(y, done)
        return y


def rows(y: Tensor, done: Tensor) -> None:
    y[done] = 0.0


def rows_of_steps(y: Tensor, done: Tensor) -> None:
    y.transpose(0, 1)[:, done] = 0.0


def rows_after_an_ellipsis(y: Tensor, done: Tensor) -> None:
    y.permute(1, 2, 0)[..., done] = 0.5


def features(y: Tensor, done: Tensor) -> None:
    y[done] = torch.arange(4.0)


def one_row(y: Tensor, done: Tensor) -> None:
    y.transpose(0, 1)[:, done] = torch.arange(4.0)[None]


def entries(y: Tensor, done: Tensor) -> None:
    y[y > 0.1] = 0.5


def steps(y: Tensor, done: Tensor) -> None:
    y[y.sum(-1) > 0] = torch.arange(4.0)


def one_feature_of_all(y: Tensor, done: Tensor) -> None:
    y[..., 1] = 0.5
    y[..., -1] = y[..., 0]


EACH = [rows, rows_of_steps, rows_after_an_ellipsis, features, one_row, entries, steps, one_feature_of_all]


@pytest.mark.parametrize("assign", EACH)
def test_places_that_get_the_same_numbers_are_a_choice(
    assign: Callable[[Tensor, Tensor], None], tmp_path: Path
) -> None:
    result = right(Masked(assign).eval(), inputs, SHAPES, tmp_path)
    assert "Where" in result.operators
    assert not {"NonZero", "ScatterND", "ScatterElements"} & set(result.operators)


def twice(y: Tensor, done: Tensor) -> None:
    y.transpose(0, 1)[:, done] *= 2


def one_feature(y: Tensor, done: Tensor) -> None:
    y.transpose(0, 1)[:, done, 1] = 0.5


def other_rows(y: Tensor, done: Tensor) -> None:
    y[done] = y[done].flip(2)


def one_step_of_two_masks(y: Tensor, done: Tensor) -> None:
    y.transpose(0, 1)[0, done] = 0.5


@pytest.mark.parametrize("assign", [twice, one_feature, other_rows, one_step_of_two_masks])
def test_places_that_get_their_own_numbers(assign: Callable[[Tensor, Tensor], None], tmp_path: Path) -> None:
    right(Masked(assign).eval(), inputs, SHAPES, tmp_path)


class Parts(nn.Module):
    """A GRU, and its output after each assignment to some of its steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(x)[0]
        found = [y.clone() for _ in range(8)]
        found[0][:, 1:] = y[:, :-1]
        found[1][:, 3:] = y[:, 3:] * 2
        found[2][:, :-2] = y[:, 2:]
        found[3][:, -2:] = y[:, -2:] * 2
        found[4][:, 1:-1] = y[:, 1:-1] * 2
        found[5][:, 1:3] = y[:, 1:3] * 2
        found[6][:, ::2] = y[:, ::2] * 2
        found[7][:, 2:].clamp_(-0.1, 0.1)
        return torch.cat(found, 2)


def test_steps_are_assigned_however_few_there_are(tmp_path: Path) -> None:
    module = Parts().eval()
    axes = {"x": {0: "batch", 1: torch.export.Dim("time", min=1)}}
    result = made(module, inputs(2, 6)[:1], axes, tmp_path)
    for time in (1, 2, 3, 4, 9):
        given = inputs(2, time)[:1]
        agree(result.run(given), eager(module, given))


def test_a_row_of_numbers_for_a_mask_of_two_axes_is_for_its_places(tmp_path: Path) -> None:
    """Places (batch, time), and numbers (1, 4) for them: their first axis stands for both."""

    def assign(y: Tensor, done: Tensor) -> None:
        y[y.sum(-1) > 0] = torch.arange(4.0)[None]

    module = Masked(assign).eval()
    result = made(module, inputs(2, 4), SHAPES, tmp_path)
    for sizes in [(1, 1), (3, 7)]:
        agree(result.run(inputs(*sizes)), eager(module, inputs(*sizes)))


class Signs(nn.Module):
    """Whole numbers, of which steps are assigned numbers of another dtype."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        y = self.gru(x)[0]
        zeros = torch.zeros(y.shape, dtype=torch.int32)
        found = torch.slice_scatter(zeros, (y[:, 1:] > 0).long(), 1, 1)
        return torch.where(done[:, None, None], y, y + found), found[:, 1:]


def test_steps_are_assigned_numbers_of_another_dtype(tmp_path: Path) -> None:
    right(Signs(), inputs, SHAPES, tmp_path, sizes=((3, 2), (1, 9)))
