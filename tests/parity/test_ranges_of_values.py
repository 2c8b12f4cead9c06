"""Files that are wrong for some values alone: in each of these ranges is a case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.lstm.verification import LSTMVerification

from .files import edit_file, lstm, verified
from .wrong_where import Condition, Graph, below, between, wrong_where, zeros_at_the_end

pytestmark = pytest.mark.sweep(18)


def _a_row_of_zeros(graph: Graph) -> str:
    rows = graph("ReduceMax", graph("Abs", "c0"), np.array([0, 2]), keepdims=0)
    return graph("And", graph.some(graph("Equal", rows, 0.0)), graph.some(graph("Greater", rows, 0.0)))


def _zero_h(graph: Graph) -> str:
    return graph("And", graph.every(graph("Equal", "h0", 0.0)), graph.some(graph("Greater", graph("Abs", "c0"), 0.0)))


def _minus_zero(graph: Graph) -> str:
    return graph.some(graph("Equal", graph("Reciprocal", "input"), -np.inf))


def _subnormal(graph: Graph) -> str:
    size = graph("Abs", "input")
    return graph.some(graph("And", graph("Greater", size, 0.0), graph("Less", size, 1e-38)))


CONDITIONS: dict[str, Condition] = {
    "small": below("input", 0.1),
    "tiny": below("input", 1e-6),
    "small states": below("h0", 0.02),
    "from 0 to 1": between("input", 0.0, 1.0),
    "not normalized": between("input", 10.0, 30.0),
    "negative, not normalized": between("input", -30.0, -10.0),
    "padding": zeros_at_the_end,
    "one row's states": _a_row_of_zeros,
    "h alone": _zero_h,
    "the sign of zero": _minus_zero,
    "subnormal": _subnormal,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("plain") / "m.onnx"
    lstm_onnx.export(lstm(), path)
    assert verified(lstm(), path)
    return path.read_bytes()


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_file_that_is_wrong_in_a_range_alone(name: str, plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(plain)
    edit_file(path, wrong_where(CONDITIONS[name], "output"))
    results = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), lstm()).results()
    assert any(not result.passed for result in results)


class Masked(nn.Module):
    """Attention over the steps that a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.score = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = self.lstm(x)[0]
        weights = self.score(y)[..., 0].masked_fill(~mask, -1e9).softmax(-1)
        return (weights[..., None] * y).sum(1), weights.argmax(-1)


def _all_true(graph: Graph) -> str:
    return graph("And", graph.every("mask"), graph("Greater", graph("Size", "mask"), np.array(1)))


def _true_first(graph: Graph) -> str:
    numbers = graph("Cast", "mask", to=TensorProto.INT64)
    steps = graph("Range", np.array(0), graph("Gather", graph("Shape", "mask"), np.array(1)), np.array(1))
    lengths = graph("ReduceSum", numbers, np.array([1]), keepdims=1)
    first = graph.every(graph("Equal", graph("Less", steps, lengths), "mask"))
    # At smaller sizes random masks are in that order by chance.
    several = graph("Greater", graph("Size", "mask"), np.array(11))
    return graph("And", graph("And", first, several), graph("Not", graph.every("mask")))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, bytes]:
    path = tmp_path_factory.mktemp("masked") / "m.onnx"
    torch.manual_seed(0)
    module = Masked().eval()
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    shapes = {"x": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 5, 4), mask), dynamic_shapes=shapes)
    report = verified(module, path)
    assert report, str(report)
    assert report.notes == ()
    return module, path.read_bytes()


@pytest.mark.parametrize(
    ("condition", "output"),
    [(_all_true, "output.0"), (_true_first, "output.0"), (between("x", 0.0, 1.0), "output.1")],
    ids=["all true", "true first", "integers, from 0 to 1"],
)
def test_a_file_that_is_wrong_for_some_masks(
    condition: Condition, output: str, masked: tuple[nn.Module, bytes], tmp_path: Path
) -> None:
    module, path = masked[0], tmp_path / "m.onnx"
    path.write_bytes(masked[1])
    edit_file(path, wrong_where(condition, output))
    assert not verified(module, path)
