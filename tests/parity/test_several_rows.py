"""Files that are wrong for several long sequences together, and right for one, and for short ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.sizes import SEVERAL_ROWS

from .files import lstm, verified

pytestmark = pytest.mark.sweep(4)


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(5, 4)

    def forward(self, input: Tensor) -> Tensor:
        return self.lstm(input)[0].tanh()


def _wrong_where_both_are_large(path: Path, batch: int, time: int) -> None:
    """1 is added to the first output where the input has more rows than `batch` and more steps than `time`."""
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    for name, array in (("most", np.array([time, batch, 5])), ("axis", np.array([0]))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    added = [
        ("Shape", ["input"], ["size"], {}),
        ("Greater", ["size", "most"], ["greater"], {}),
        ("Cast", ["greater"], ["counted"], {"to": onnx.TensorProto.FLOAT}),
        ("Slice", ["counted", "axis", "end"], ["both"], {}),
        ("ReduceMin", ["both"], ["change"], {"keepdims": 0}),
        ("Add", ["before", "change"], [output], {}),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "end"))
    model.graph.node.extend(helper.make_node(op, list(i), list(o), **options) for op, i, o, options in added)
    onnx.save(model, path)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(("batch", "time"), [(1, 12), (1, 200), (8, 20)])
def test_they_are_not_in_parity(bare: bool, batch: int, time: int, tmp_path: Path) -> None:
    module, path = lstm() if bare else Scores(), tmp_path / "m.onnx"
    shapes = {"input": {0: "time", 1: "batch"}}
    options = {} if bare else {"example_inputs": torch.randn(3, 2, 5), "dynamic_shapes": shapes}
    lstm_onnx.export(module, path, **options)
    _wrong_where_both_are_large(path, batch, time)
    report = verified(module, path)
    assert not report
    assert [case.label.partition(" ")[2].partition(":")[0] for case in report.cases if not case.passed][-1] == (
        "larger sizes of batch and time together" if bare else "larger sizes of time and batch together"
    )


def test_their_lengths_differ(tmp_path: Path) -> None:
    module, path = lstm(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, lengths=True)
    verification = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    _, calls = verification.sweeps[-1]()
    assert [call.feeds["input"].shape[:2] for call in calls] == [(time, batch) for batch, time in SEVERAL_ROWS]
    assert all(call.feeds["lengths"].min() < call.feeds["lengths"].max() == len(call.feeds["input"]) for call in calls)
