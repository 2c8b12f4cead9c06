from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ParityReport

from ..files import verified

# What is tested here is compared before all sizes are.
pytestmark = pytest.mark.usefixtures("without_sweeps")


class _Scores(nn.Module):
    """Scores of each step, and whether they are above a threshold that untrained weights do not reach."""

    def __init__(self, threshold: float = 0.9) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 1)
        self.threshold = threshold

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(self.lstm(x)[0])[..., 0]
        return scores, scores > self.threshold


class _Wrong(_Scores):
    """Other scores where `condition` holds."""

    def __init__(self, condition: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.condition = condition

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, above = super().forward(x)
        return torch.where(self.condition(x), scores + 1, scores), above


def _verified(module: nn.Module, exported: nn.Module, path: Path) -> ParityReport:
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(exported, path, example_inputs=(torch.randn(2, 5, 4),), dynamic_shapes=axes, check=False)
    return verified(module, path)


def _steps(x: Tensor) -> Tensor:
    return torch.ones_like(x[0, :, 0]).sum()


def _rows(x: Tensor) -> Tensor:
    return torch.ones_like(x[:, 0, 0]).sum()


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    "condition",
    [
        pytest.param(lambda x: (x < 0).all() & (_steps(x) > 4), id="negative and more than 4 steps"),
        pytest.param(lambda x: (x < 0).all() & (_steps(x) < 2), id="negative and one step"),
        pytest.param(lambda x: (x > 15).all() & (_rows(x) > 4), id="large and more than 4 rows"),
        pytest.param(lambda x: (x == 0).all() & (_rows(x) < 2), id="zeros in one row"),
    ],
)
def test_files_that_are_wrong_for_some_values_at_some_sizes_fail(
    tmp_path: Path, condition: Callable[[Tensor], Tensor]
) -> None:
    assert not _verified(_Scores(), _Wrong(condition), tmp_path / "m.onnx")


class _Rounded(nn.Module):
    def __init__(self, rounding: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scores, self.rounding = _Scores(), rounding

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.rounding(x))[0]
        return scores


@pytest.mark.sweep(2)
def test_ways_of_rounding_differ_at_halves(tmp_path: Path) -> None:
    right, wrong = _Rounded(torch.round), _Rounded(lambda x: torch.floor(x + 0.5))
    assert not _verified(right, wrong, tmp_path / "m.onnx")


class _Mean(nn.Module):
    """Of the first steps of each sequence, or of none, which is 0."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.scores, self.least = _Scores(), least

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        scores: Tensor = self.scores(x)[0]
        mask = torch.arange(x.shape[1]) < count.clamp(min=self.least)[:, None]
        return (scores * mask).sum(1) / mask.sum(1).clamp(min=1)


@pytest.mark.sweep(2)
def test_integers_are_not_those_of_the_example_alone(tmp_path: Path) -> None:
    axes = {"x": {0: "batch", 1: "time"}, "count": {0: "batch"}}
    example = (torch.randn(2, 5, 4), torch.tensor([5, 3]))
    for least in (0, 1):
        lstm_onnx.export(_Mean(least), tmp_path / "m.onnx", example_inputs=example, dynamic_shapes=axes, check=False)
        report = verified(_Mean(0), tmp_path / "m.onnx")
        assert bool(report) is (least == 0)
        (tried,) = (one for one in report.ranges if one.name == "count")
        assert tried.least < 0
        assert tried.largest > 5


def test_integers_are_compared_where_they_differ(tmp_path: Path) -> None:
    right = _verified(_Scores(0.7), _Scores(0.7), tmp_path / "right.onnx")
    assert right
    assert any(case.label.endswith("differs") for case in right.cases)
    assert right.notes == ()
    assert not _verified(_Scores(0.7), _Scores(50.0), tmp_path / "wrong.onnx")


class _Counted(_Scores):
    """Beside the scores the number of steps that `is_step` holds for, and places of numbers that may be equal."""

    def __init__(self, is_step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.is_step = is_step

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        states, _ = self.lstm(x)
        return (
            self.head(states)[..., 0],
            self.is_step(x.abs().sum(-1)).sum(1),
            states.argmax(-1),
            x.topk(2, -1).indices,
        )


def test_integers_beside_floats_are_compared_at_padding(tmp_path: Path) -> None:
    right, wrong = _Counted(lambda x: x > 0), _Counted(lambda x: x >= 0)
    assert _verified(right, right, tmp_path / "right.onnx")
    assert not _verified(right, wrong, tmp_path / "wrong.onnx")


def test_a_note_names_outputs_that_are_one_number_in_every_case(tmp_path: Path) -> None:
    report = _verified(_Scores(50.0), _Scores(51.0), tmp_path / "m.onnx")
    assert report  # nothing shows that the threshold is another
    (note,) = json.loads(json.dumps(report.to_dict()))["notes"]
    assert "was False in every case, so what makes it differ was not put to the test" in note
    assert note in str(report)
