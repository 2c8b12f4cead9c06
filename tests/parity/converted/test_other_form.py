"""An int8 file with other nodes than this version writes must give the same bits in all ranges, and at larger sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.converted.exact import GRAPH
from tests.parity.files import edit_file
from tests.parity.wrong_where import Condition, Graph, below, between, wrong_where, zeros_at_the_end

from .files import OPTIONS

pytestmark = pytest.mark.sweep(3)


def _many(graph: Graph) -> str:
    sizes = graph("Slice", graph("Shape", "input"), np.array([0]), np.array([2]))
    return graph.every(graph("Greater", sizes, np.array([12, 12])))


def _never(graph: Graph) -> str:
    return below("input", 0.0)(graph)


CONDITIONS: dict[str, Condition] = {
    "tiny": below("input", 1e-4),
    "not normalized": between("input", 10.0, 30.0),
    "padding": zeros_at_the_end,
    "many rows and steps": _many,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    lstm_onnx.export(nn.LSTM(20, 24), folder / "float32.onnx")
    lstm_onnx.quantize(folder / "float32.onnx", folder / "int8.onnx")
    return folder


def _failed(folder: Path, path: Path, condition: Condition) -> set[str]:
    path.write_bytes((folder / "int8.onnx").read_bytes())
    edit_file(path, wrong_where(condition, "output"))
    report = lstm_onnx.verify(folder / "float32.onnx", path, **OPTIONS)
    assert bool(report) is all(case.passed for case in report.cases)
    return {case.label for case in report.cases if not case.passed}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_file_that_is_wrong_in_a_range_alone(name: str, folder: Path, tmp_path: Path) -> None:
    assert GRAPH in _failed(folder, tmp_path / "m.onnx", CONDITIONS[name])


class Smoothed(nn.Module):
    """A convolution, whose inputs a stream keeps in a cache, which is empty in whole sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(4, 4, 3), nn.GRU(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(nn.functional.pad(x.transpose(1, 2), (2, 0)))
        return self.gru(y.transpose(1, 2))[0]


def _single_steps_after_others(graph: Graph) -> str:
    one = graph("Equal", graph("Shape", "x", start=1, end=2), np.array([1]))
    return graph("And", one, graph.some(graph("Greater", graph("Abs", "conv.cache"), 0.0)))


def test_a_stream_that_is_wrong_after_its_first_chunk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"dynamic_shapes": {"x": {0: "batch", 1: "time"}}, "states": "explicit", "check": False}
    lstm_onnx.export(Smoothed(), tmp_path / "float32.onnx", example_inputs=torch.randn(2, 9, 4), **options)
    lstm_onnx.quantize(tmp_path / "float32.onnx", tmp_path / "int8.onnx")
    assert GRAPH in _failed(tmp_path, tmp_path / "m.onnx", _single_steps_after_others)


def test_a_file_that_is_never_wrong(folder: Path, tmp_path: Path) -> None:
    assert _failed(folder, tmp_path / "m.onnx", _never) == set()
