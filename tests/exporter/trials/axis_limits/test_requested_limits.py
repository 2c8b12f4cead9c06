"""Limits that the user asks for are kept, and no size outside of them is tried."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lstm_onnx import ConfigError, ExportError
from lstm_onnx.exporter.trials.shape_trial import Outcome, ShapeTrial, Sizes
from tests.exporter.helpers import X, agree, eager, made, signal

from .modules import Dim, both_ends, first_steps_left_out, module, under_a_size

pytestmark = pytest.mark.sweep(5)


def test_limits_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    found = module(both_ends)
    result = made(found, signal(2, 9), {"x": {0: "batch", 1: Dim("time", min=5, max=40)}}, tmp_path)
    assert result.exported.notes == ()
    assert result.model.metadata.axis_limits == {"time": (5, 40)}
    for time in (5, 40):
        agree(result.run(signal(3, time)), eager(found, signal(3, time)))


def test_no_size_outside_of_the_limits_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[int, int]] = set()
    run = ShapeTrial._run

    def recorded(self: ShapeTrial, sizes: Sizes) -> Outcome:
        seen.add((sizes["batch"], sizes["time"]))
        return run(self, sizes)

    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out * 2 if x.shape[1] > 100 else out

    monkeypatch.setattr(ShapeTrial, "_run", recorded)
    shapes = {"x": {0: Dim("batch", min=2, max=3), 1: Dim("time", min=3, max=12)}}
    made(module(forward), signal(2, 4), shapes, tmp_path)
    assert {batch for batch, _ in seen} == {2, 3}
    assert {time for _, time in seen} <= set(range(3, 13))
    assert {3, 4, 12} <= {time for _, time in seen}


def test_an_example_outside_of_the_limits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the axis time has size 4 in the example, and must be from 7 to 9"):
        made(module(under_a_size), signal(2, 4), {"x": {1: Dim("time", min=7, max=9)}}, tmp_path)
    with pytest.raises(ConfigError, match=r"the axis time has size 4 in the example, and must be 7 or more"):
        made(module(under_a_size), signal(2, 4), {"x": {1: Dim("time", min=7)}}, tmp_path)


def test_without_a_trial_steps_are_still_counted(tmp_path: Path) -> None:
    result = made(module(first_steps_left_out), signal(2, 9), X, tmp_path, check=False)
    assert result.model.metadata.axis_limits == {"time": (3, None)}
    assert result.exported.notes == ("time is 3 or more in the file: gru would get 0 steps, and needs at least one",)


def test_a_module_that_stops_at_a_size_gives_a_file_that_does(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[1] > 30:
            raise ValueError("no more than 30 steps")
        return self.lstm(x)[0]

    result = made(module(forward), signal(2, 4), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (1, 30)}
    assert "ValueError: no more than 30 steps" in result.exported.notes[0]


def test_sizes_that_a_module_takes_now_and_then_are_no_limit(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[1] % 4:
            raise ValueError("a multiple of four")
        return self.lstm(x)[0].unflatten(1, (-1, 4)).mean(2)

    found = module(forward)
    result = made(found, signal(2, 8), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (4, None)}
    for time in (4, 12, 400):
        agree(result.run(signal(2, time)), eager(found, signal(2, time)))


def test_both_axes_decide_together(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out * 2 if x.shape[1] > 15 and x.shape[0] > 8 else out

    with pytest.raises(ExportError, match="so it was not kept"):
        made(module(forward), signal(2, 4), X, tmp_path)


def test_a_decision_behind_another_is_found_by_its_number(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        if x.shape[1] > 15:
            out = out.clone()
            if x.shape[1] > 1000:
                out = out * 2
        return out

    with pytest.raises(ExportError, match=r"at batch 2, time 1001, so it was not kept"):
        made(module(forward), signal(2, 4), X, tmp_path)


def test_what_takes_too_long_to_try_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.exporter.trials.axis_limits._MOST_COST", 10**6)

    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out * 2 if x.shape[1] > 300_000 else out

    result = made(module(forward), signal(2, 4), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (1, 300_000)}
    assert "trials at larger sizes take too long" in result.exported.notes[0]


def fades(self: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[0], 3)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] - h)
        if t >= 40:
            h = h * 0.5
    return self.lstm(h[:, None])[0]


def test_lengths_of_loops_that_take_seconds_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.exporter.trials.axis_limits._LONG_COST", 0)
    with pytest.raises(ExportError, match=r"time 41, so it was not kept; at .*if t >= 40"):
        made(module(fades), signal(2, 4), X, tmp_path)


def test_lengths_of_loops_that_take_too_long_to_try_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.exporter.trials.axis_limits._LONG_COST", 0)
    monkeypatch.setattr("lstm_onnx.exporter.trials.axis_limits._MOST_COST", 0)
    notes = made(module(fades), signal(2, 4), X, tmp_path).exported.notes
    assert any(note.startswith("time was tried only up to 16, since more takes too long") for note in notes)


def root_of_what_is_left(self: Any, x: Tensor) -> Tensor:
    return self.lstm(x * torch.sqrt(x.new_full((), 100.0) - x.shape[1]))[0]  # ONNX Runtime's LSTM makes numbers of NaN


def test_numbers_that_are_not_defined_at_a_size_take_a_largest_size(tmp_path: Path) -> None:
    found = module(root_of_what_is_left)
    with pytest.raises(ExportError, match=r"gives only NaN at .* bound the axis to where they are "):
        made(found, signal(2, 4), X, tmp_path)
    result = made(found, signal(2, 4), {"x": {0: "batch", 1: Dim("time", max=60)}}, tmp_path)
    agree(result.run(signal(3, 40)), eager(found, signal(3, 40)))
