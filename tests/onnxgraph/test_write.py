"""No model is written to the standard output: a file would have its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import lstm_onnx
from lstm_onnx import FileError

WRITERS: dict[str, Callable[[Path], object]] = {
    "export": lambda _: lstm_onnx.export(torch.nn.LSTM(4, 3), "-"),
    "quantize": lambda file: lstm_onnx.quantize(file, "-", trial=False),
    "make_streaming": lambda file: lstm_onnx.make_streaming(file, "-", time={"input": 0}, trial=False),
    "make_generating": lambda file: lstm_onnx.make_generating(
        file, "-", input="input", output="output", choose="value", trial=False
    ),
    "repair": lambda file: lstm_onnx.repair(file, "-", trial=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_dash_names_no_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lstm_onnx.export(torch.nn.LSTM(4, 3), "m.onnx")
    with pytest.raises(FileError, match="a model is not written to stdout"):
        WRITERS[name](tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
