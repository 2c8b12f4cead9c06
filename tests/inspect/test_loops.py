"""`inspect` of Scans and Loops that are not layers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx import inspect
from tests.runtime.models import exported

FLOAT = TensorProto.FLOAT


def saved(path: Path, hidden: int = 5, activation: str = "Tanh") -> Path:
    """h = activation(x W + h R) step by step, with two matrices of the graph around the Scan."""
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x_t", "W"], ["a"]),
        helper.make_node("MatMul", ["h", "R"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node(activation, ["c"], ["h_next"]),
        helper.make_node("Identity", ["h_next"], ["y_t"]),
    ]
    inputs = [info("h", FLOAT, ["batch", hidden]), info("x_t", FLOAT, ["batch", 3])]
    outputs = [info("h_next", FLOAT, ["batch", hidden]), info("y_t", FLOAT, ["batch", hidden])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    scan = helper.make_node("Scan", ["h0", "x"], ["hn", "y"], name="loop", num_scan_inputs=1, body=body)
    stored = {"W": np.zeros((3, hidden), np.float32), "R": np.zeros((hidden, hidden), np.float32)}
    graph = helper.make_graph(
        [scan],
        "g",
        [info("h0", FLOAT, ["batch", hidden]), info("x", FLOAT, ["time", "batch", 3])],
        [info("hn", FLOAT, ["batch", hidden]), info("y", FLOAT, ["time", "batch", hidden])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_its_states_operators_and_flops(tmp_path: Path) -> None:
    found = inspect(saved(tmp_path / "m.onnx"))
    (loop,) = found.loops
    assert (loop.name, loop.kind, loop.states) == ("loop", "Scan", ("(batch, 5)",))
    assert loop.operators == {"Add": 1, "Identity": 1, "MatMul": 2, "Tanh": 1}
    assert loop.flops_per_step == 2 * (3 * 5 + 5 * 5)
    assert "loop: Scan; states (batch, 5); 80 FLOPs per sequence and step; a step is Add 1" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["loops"][0]["flops_per_step"] == 80
    assert found.other_ops["Scan"] == 1


@pytest.mark.parametrize(("hidden", "times"), [(5, "7"), (128, "2.5"), (300, "1.3")])
def test_how_much_faster_a_node_would_be(hidden: int, times: str, tmp_path: Path) -> None:
    (loop,) = inspect(saved(tmp_path / "m.onnx", hidden)).loops
    assert f"about {times} times as long as an LSTM or GRU node" in loop.note
    (loop,) = inspect(saved(tmp_path / "m.onnx", hidden, "Abs")).loops
    assert loop.note == ""


def test_files_of_other_tools_that_repair_is_for_have_a_note(tmp_path: Path) -> None:
    (note,) = inspect(saved(tmp_path / "loop.onnx")).notes
    assert note == "loop may be a recurrent layer that is written as a loop: see lstm-onnx repair"
    assert inspect(saved(tmp_path / "sums.onnx", activation="Identity")).notes == ()
    info = helper.make_tensor_value_info
    stored = {"W": np.zeros((1, 12, 3), np.float32), "R": np.zeros((1, 12, 4), np.float32)}
    for inputs, expected in ((["x", "W", "R"], True), (["x", "W", "R", "", "", "h0"], False)):
        node = helper.make_node("GRU", inputs, ["y", "hn"], name="gru", hidden_size=4, linear_before_reset=1)
        values = [info("x", FLOAT, ["time", "batch", 3]), info("h0", FLOAT, [1, "batch", 4])][: 1 + (not expected)]
        graph = helper.make_graph(
            [node],
            "g",
            values,
            [info("y", FLOAT, ["time", 1, "batch", 4]), info("hn", FLOAT, [1, "batch", 4])],
            [numpy_helper.from_array(array, name) for name, array in stored.items()],
        )
        path = tmp_path / f"{expected}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
        told = ("the states of gru are not inputs, so that it cannot be streamed: see lstm-onnx repair",)
        assert inspect(path).notes == (told if expected else ())
        exported(tmp_path / "ours.onnx")
        assert inspect(tmp_path / "ours.onnx").notes == ()
