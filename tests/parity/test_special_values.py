"""Verification with a NaN or an infinity in a row: other rows, what the module handles, and what the file hides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lstm_onnx
from lstm_onnx import ParityReport, verify
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.parity.special_values import _right_case
from tests.exporter.helpers import X, signal

pytestmark = pytest.mark.usefixtures("without_sweeps")


class Changes(nn.Module):
    """A projected LSTM, which carries a NaN on, of the inputs or of what a subclass makes of them."""

    def __init__(self, proj_size: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, proj_size=proj_size, batch_first=True)

    def change(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(self.change(x))[0]
        return y


class Handles(Changes):
    """A NaN is a zero."""

    def change(self, x: Tensor) -> Tensor:
        return x.nan_to_num()


class Pools(Changes):
    """Of each two steps the larger number."""

    def change(self, x: Tensor) -> Tensor:
        return functional.max_pool1d(x.mT, 2).mT


class Mixes(Changes):
    """The same for numbers; a NaN of a row reaches all of them."""

    def change(self, x: Tensor) -> Tensor:
        return x + 0 * x.sum(0, keepdim=True)


def report_of(module: nn.Module, folder: Path, exported: nn.Module | None = None) -> ParityReport:
    """On the file of `exported`, or the module's own."""
    shapes = {"x": {0: "batch", 1: torch.export.Dim("time", min=2)}} if isinstance(module, Pools) else X
    path = folder / "model.onnx"
    lstm_onnx.export((exported or module).eval(), path, example_inputs=signal(2, 4), dynamic_shapes=shapes)
    return verify(module.eval(), path, mutants="none")


@pytest.mark.sweep(3)
@pytest.mark.parametrize("module", [Changes(proj_size=0), Handles(), Mixes()])
def test_right_files_pass_without_a_note(module: nn.Module, tmp_path: Path) -> None:
    report = report_of(module, tmp_path)
    assert report
    assert not report.notes


def test_a_nan_that_reaches_other_rows_fails(tmp_path: Path) -> None:
    report = report_of(Changes(), tmp_path, Mixes())
    assert not report
    failed = [case for case in report.cases if not case.passed]
    assert {case.label for case in failed} == {
        f"batch 3, time 7, {what} at x[1, {step}, 0], the other rows"
        for what, step in (("a NaN", 3), ("a NaN", 2), ("an infinity", 3))
    }
    assert failed[0].tensors[0].problem == "is not finite where PyTorch is"


def test_other_numbers_than_those_of_a_module_that_handles_nan_fail(tmp_path: Path) -> None:
    report = report_of(Handles(proj_size=0), tmp_path, Changes(proj_size=0))
    assert not report
    failed = {case.label for case in report.cases if not case.passed}
    assert failed == {f"batch 3, time 7, a NaN at x[1, {step}, 0]" for step in (2, 3)}


def test_a_hidden_nan_is_noted(tmp_path: Path) -> None:
    report = report_of(Pools(), tmp_path)
    assert report
    (note,) = report.notes
    assert note == "with a NaN in x, PyTorch gives NaN and the file numbers: output; look for it before a run"


def test_a_nan_that_the_module_does_not_give_is_noted(tmp_path: Path) -> None:
    report = report_of(Handles(), tmp_path, Changes())
    assert "with a NaN in x, PyTorch gives numbers and the file NaN: output" in report.notes


@pytest.mark.sweep(2)
@pytest.mark.parametrize("options", [{}, {"lengths": True}])
def test_a_bare_lstm(options: dict[str, bool], tmp_path: Path) -> None:
    module, path = nn.LSTM(3, 4), tmp_path / "model.onnx"
    lstm_onnx.export(module, path, **options)
    report = verify(module, path, mutants="none")
    assert report
    assert not report.notes


def test_a_case_that_passed_without_jumps_is_changed() -> None:
    """With a NaN in one row, the jumps of the others are not looked for."""
    x = {"x": np.zeros((3, 4))}
    steady = Expected("steady", (Call(x, x, x),), "float32", 1.0)
    call = replace(steady.calls[0], jumps={"x": (x["x"], x["x"])})
    jumping = Expected("jumping", (call,), "float32", 1.0, time_axes={"x": 1}, batch_axes={"x": 0})
    pairs = [(one, one.judge([x])) for one in (jumping, steady)]
    assert _right_case(cast(Any, SimpleNamespace(pairs=pairs)), ()) is steady
