"""The names in exported files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
from torch import nn

import lstm_onnx
from lstm_onnx.exporter.node_names import (
    node_name,
    operand_name,
    scope_prefix,
    state_names,
    state_prefix,
)


def test_scopes_are_paths_and_calls() -> None:
    assert [scope_prefix(""), scope_prefix("encoder.rnn"), scope_prefix("encoder", 1), scope_prefix("", 2)] == [
        "",
        "encoder/rnn/",
        "encoder/call2/",
        "call3/",
    ]
    assert scope_prefix("parts.a/b") != scope_prefix("parts.a.b")


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}, {"bidirectional": True}, {"num_layers": 2}])
def test_the_emitters_weights_are_under_their_layers_names(options: dict[str, int], tmp_path: Path) -> None:
    lstm_onnx.export(nn.LSTM(3, 4, **options), tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    operator = "Scan" if "proj_size" in options else "LSTM"
    layers = range(options.get("num_layers", 1))
    assert [node.name for node in graph.node if node.op_type == operator] == [
        f"l{layer}/{operator}" for layer in layers
    ]
    assert {f"l{layer}/{name}" for layer in layers for name in ("W", "R", "B")} <= {
        item.name for item in graph.initializer
    }


def test_a_bidirectional_scan_has_a_matrix_for_each_direction(tmp_path: Path) -> None:
    lstm_onnx.export(nn.LSTM(3, 4, proj_size=2, bidirectional=True), tmp_path / "m.onnx")
    names = {item.name for item in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {f"l0/{name}_{side}" for name in ("R", "W_hr") for side in ("forward", "reverse")} <= names


def test_names_of_states_sort_as_those_of_their_next_values() -> None:
    for count in (1, 2, 3):
        inputs, outputs = state_names("hidden", count)
        pairs = dict(zip(inputs, outputs, strict=True))
        assert [pairs[name] for name in sorted(inputs)] == sorted(outputs)
    assert state_prefix("encoder.lstm", 1) == "encoder.lstm.call2."


def test_nodes_are_numbered_and_operands_named() -> None:
    used: Counter[str] = Counter()
    assert [node_name("out", "MatMul", used) for _ in range(2)] == ["out/MatMul", "out/MatMul_2"]
    assert node_name("", "Add", used) == "Add"
    assert (operand_name("out/MatMul", "MatMul", 1), operand_name("a", "Mul", 1)) == ("out/MatMul/weight", "a/1")
