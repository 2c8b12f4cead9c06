"""Files whose nodes are not as ONNX has them, or as old versions had them: refused, or left, by repair and others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper

import lstm_onnx
from lstm_onnx import ModelError
from tests.hostile_files import FLOAT, one_node, written

WEIGHTS = {"W": np.ones((1, 8, 3), np.float32), "R": np.ones((1, 8, 2), np.float32)}
GIVEN = {"x": (FLOAT, ["time", "batch", 3])}


def _lstm(inputs: list[str], **stored: np.ndarray) -> ModelProto:
    return one_node("LSTM", inputs, given=GIVEN, stored={**WEIGHTS, **stored}, hidden_size=2)


def _scan_of_opset_8() -> ModelProto:
    """It has a batch, and lengths as its first input."""
    values = [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("s", "x_t", "s_out", "y_t")]
    nodes = [helper.make_node("Add", ["s", "x_t"], ["s_out"]), helper.make_node("Identity", ["s_out"], ["y_t"])]
    body = helper.make_graph(nodes, "body", values[:2], values[2:])
    given = {"first": (FLOAT, [1, 2]), "x": (FLOAT, [1, 3, 2])}
    return one_node("Scan", ["", "first", "x"], given=given, outputs=("y", "ys"), opset=8, body=body, num_scan_inputs=1)


def _cycle() -> ModelProto:
    model = one_node("Add", ["x", "b"], given=GIVEN)
    model.graph.node[0].output[0] = "a"
    model.graph.node.append(helper.make_node("Add", ["x", "a"], ["b"]))
    model.graph.node.append(helper.make_node("Identity", ["b"], ["y"]))
    return model


def _without_outputs() -> ModelProto:
    model = _lstm(["x", "W", "R"])
    del model.graph.node[0].output[:]
    model.graph.node.append(helper.make_node("Neg", ["x"], ["y"]))
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_scan_of_opset_8, "no loop that was recognised"),
        (lambda: _lstm(["x", "W", "R1"], R1=np.ones(8, np.float32)), "size and type of R of n are not known"),
    ],
)
def test_repair(make: Callable[[], ModelProto], message: str, tmp_path: Path):
    with pytest.raises(ModelError, match=message):
        lstm_onnx.repair(written(tmp_path, make()), tmp_path / "o.onnx", trial=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [(_cycle, "not acyclic"), (_without_outputs, "needs no states"), (lambda: _lstm(["nowhere", "W", "R"]), "nowhere")],
)
def test_make_streaming(make: Callable[[], ModelProto], message: str, tmp_path: Path):
    with pytest.raises(ModelError, match=message):
        lstm_onnx.make_streaming(written(tmp_path, make()), tmp_path / "o.onnx", time={"x": 0}, trial=False)


def test_to_torch(tmp_path: Path):
    with pytest.raises(ModelError, match=r"Scan with a batch, as in opset 8 \(n\) has no translation"):
        lstm_onnx.to_torch(written(tmp_path, _scan_of_opset_8()))


@pytest.mark.parametrize(
    ("shape", "problem"),
    [([2**40, 3], "x is too large for a program"), ([1] * 65, "no NumPy array fits the input 'x': it has 65 axes")],
    ids=["size", "axes"],
)
def test_programs_have_no_inputs_of_any_size(shape: list[int], problem: str, tmp_path: Path):
    from lstm_onnx.inspect.code import program

    model = one_node("Neg", ["x"], given={"x": (FLOAT, shape)})
    with pytest.raises(lstm_onnx.LSTMOnnxError, match=problem):
        program(written(tmp_path, model), "python")
