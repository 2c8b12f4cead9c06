"""A bare LSTM's file whose metadata says other axes or sizes than it has: calls would go by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import lstm_onnx
from lstm_onnx.parity.build import INTERFACE
from tests.module_files import with_metadata
from tests.parity.files import lstm, verified


@pytest.mark.sweep(3)
@pytest.mark.parametrize(("name", "value"), [("batch_first", True), ("hidden_size", 9), ("num_layers", 2)])
def test_metadata_with_other_axes_or_sizes_than_the_file_fails(name: str, value: int, tmp_path: Path) -> None:
    lstm_onnx.export(lstm(), tmp_path / "right.onnx")
    spec = lstm_onnx.load(tmp_path / "right.onnx").spec
    assert spec is not None
    path = with_metadata(tmp_path / "m.onnx", tmp_path / "right.onnx", spec=replace(spec, **{name: value}))
    report = verified(lstm(), path)
    assert [case.label for case in report.cases if not case.passed] == [INTERFACE]
    assert f"{name} is {value}, not" in str(report)
