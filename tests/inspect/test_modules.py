"""Inspection of GRU and RNN nodes, and of files that hold a whole module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.inspect import Inspection, LSTMInfo, inspect
from tests.module_files import edited_module, module_file, with_initial, with_metadata

F, H = 3, 5


def alone(folder: Path, op_type: str, gates: int, *, bias: bool = True, **attributes: Any) -> LSTMInfo:
    """One bidirectional operator in a file of others."""
    shapes = {"W": (2, gates * H, F), "R": (2, gates * H, H), "B": (2, 2 * gates * H)}
    names = ["W", "R", "B"] if bias else ["W", "R"]
    node = helper.make_node(
        op_type,
        ["x", *names, *([] if bias else [""]), "", "h"],
        ["y"],
        direction="bidirectional",
        **{"hidden_size": H, **attributes},
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["t", "b", F]) for name in ("x", "h")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(shapes[name], np.float32), name) for name in names],
    )
    path = folder / "m.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    (found,) = inspect(path).lstms
    return found


def test_a_gru(tmp_path: Path) -> None:
    found = alone(tmp_path, "GRU", 3, linear_before_reset=1)
    assert (found.kind, found.direction, found.input_size, found.hidden_size) == ("GRU", "bidirectional", F, H)
    assert (found.bias, found.states, found.dtype, found.lengths) == (True, ("h",), "float32", None)
    assert found.parameters == 2 * (3 * H * (F + H) + 6 * H)
    assert found.flops_per_step == 2 * (2 * 3 * H * (F + H) + 3 * H + H + 8 * H)
    assert (found.notes, found.module) == ((), None)


def test_a_gru_whose_reset_comes_first(tmp_path: Path) -> None:
    found = alone(tmp_path, "GRU", 3)
    assert found.flops_per_step == 2 * (2 * 3 * H * (F + H) + 3 * H + 8 * H)
    assert "linear_before_reset=0" in found.notes[0]
    assert alone(tmp_path, "GRU", 3, bias=False, linear_before_reset=1).flops_per_step == 2 * (
        2 * 3 * H * (F + H) + 8 * H
    )


@pytest.mark.parametrize(("activation", "notes"), [("Tanh", ()), ("Relu", ("activations Relu, Relu",))])
def test_an_rnn(tmp_path: Path, activation: str, notes: tuple[str, ...]) -> None:
    found = alone(tmp_path, "RNN", 1, activations=[activation] * 2)
    assert (found.kind, found.hidden_size, found.parameters) == ("RNN", H, 2 * (H * (F + H) + 2 * H))
    assert found.flops_per_step == 2 * (2 * H * (F + H) + H + H)
    assert found.notes == notes


def test_sizes_of_a_gru_from_its_wide_matrix(tmp_path: Path) -> None:
    alone(tmp_path, "GRU", 3)
    path = tmp_path / "m.onnx"

    def without_recurrent(model: Any) -> None:
        del model.graph.initializer[1]
        del model.graph.node[0].attribute[:]

    (found,) = inspect(edited_module(path, path, without_recurrent)).lstms
    assert (found.input_size, found.hidden_size) == (F, H)


def of(name: str, states: str = "zero") -> Inspection:
    return inspect(module_file(name, states))


def test_three_kinds_of_one_module() -> None:
    result = of("three_kinds", "explicit")
    assert [(item.kind, item.module, item.states) for item in result.lstms] == [
        ("LSTM", "readers.0", ("readers.0.h0", "readers.0.c0")),
        ("GRU", "readers.1", ("readers.1.h0",)),
        ("RNN", "readers.2", ("readers.2.h0",)),
    ]
    assert all(not item.notes and item.hidden_size == 7 and item.input_size == 4 for item in result.lstms)
    assert result.states["readers.1.h0"] == "readers.1.hn"
    text = str(result)
    assert f"its recurrent nodes {result.flops_per_step:,} FLOPs per sequence and step" in text
    assert "readers.1.h0 <- readers.1.hn" in text


def test_a_second_call_has_the_first_ones_weights_and_module(tmp_path: Path) -> None:
    def twice(model: Any) -> None:
        first = next(node for node in model.graph.node if node.op_type == "LSTM")
        second = model.graph.node.add()
        second.CopyFrom(first)
        second.name = first.name.replace("/l0/", "/call2/l0/")
        del second.output[:]
        second.output.append("again")

    path = edited_module(tmp_path / "m.onnx", module_file("exogenous_forecaster", "explicit"), twice)
    first, *_, second = inspect(path).lstms
    assert second.name.endswith("/call2/l0/LSTM")
    assert (first.module, second.module) == ("lstm", "lstm")
    assert first.parameters == second.parameters > 0


def test_what_the_inputs_hold_and_where_states_start(tmp_path: Path) -> None:
    text = str(of("packed_gru_and_lstm"))
    assert "in   lengths int64 (batch), from 1 to time" in text
    start = {"state.0": np.ones((1, 1, 10), np.float32)}
    path = with_initial(tmp_path / "i.onnx", module_file("policy"), start)
    result = inspect(with_metadata(tmp_path / "m.onnx", path, not_streamable="lstm is bidirectional"))
    assert "state.0 <- output.1.0 (starts from stored values), state.1 <- output.1.1" in str(result)
    assert "streams no: lstm is bidirectional" in str(result)
    metadata = json.loads(json.dumps(result.to_dict()))["metadata"]
    assert metadata["initial"] == {"state.0": {"dtype": "float32", "shape": [1, 1, 10]}}
    assert metadata["inputs"][0]["shape"] == ["batch", "time", 5]


def test_lengths_are_found_behind_their_cast() -> None:
    assert {item.kind: item.lengths for item in of("packed_gru_and_lstm").lstms} == {
        "GRU": "lengths",
        "LSTM": "lengths",
    }
