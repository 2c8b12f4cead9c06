"""The names that the emitter writes are those that are recognised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
from torch import nn

import lstm_onnx
from lstm_onnx.exporter.node_names import (
    LayerNode,
    node_name,
    operand_name,
    parse_layer_node,
    scope_prefix,
    state_names,
    state_prefix,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l0/LSTM", LayerNode("", 0, 0, "LSTM", "l0/")),
        ("encoder/rnn/l12/GRU", LayerNode("encoder.rnn", 0, 12, "GRU", "encoder/rnn/l12/")),
        ("encoder/call2/l1/Scan", LayerNode("encoder", 1, 1, "Scan", "encoder/l1/")),
        ("call3/l0/RNN", LayerNode("", 2, 0, "RNN", "l0/")),
    ],
)
def test_a_layers_node(name: str, expected: LayerNode) -> None:
    assert parse_layer_node(name) == expected
    assert name == f"{scope_prefix(expected.module, expected.call)}l{expected.layer}/{expected.op_type}"


@pytest.mark.parametrize("name", ["", "LSTM", "l0/MatMul", "lx/LSTM", "encoder/l0/LSTM_2", "call0/l0/LSTM"])
def test_other_nodes_are_none(name: str) -> None:
    assert parse_layer_node(name) is None


def test_a_module_that_is_called_as_a_call_is() -> None:
    assert parse_layer_node("net/call2/l0/LSTM", ["net.call2"]) == LayerNode("net.call2", 0, 0, "LSTM", "net/call2/l0/")
    assert parse_layer_node("net/call2/l0/LSTM", ["net"]) == LayerNode("net", 1, 0, "LSTM", "net/l0/")
    assert parse_layer_node("net/call2/l0/LSTM", ["other"]) is None


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}, {"bidirectional": True}, {"num_layers": 2}])
def test_the_emitters_weights_are_under_the_parsed_names(options: dict[str, int], tmp_path: Path) -> None:
    lstm_onnx.export(nn.LSTM(3, 4, **options), tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    layers = [found for node in graph.node if (found := parse_layer_node(node.name)) is not None]
    assert [layer.layer for layer in layers] == list(range(options.get("num_layers", 1)))
    assert {layer.weight(name) for layer in layers for name in ("W", "R", "B")} <= {
        item.name for item in graph.initializer
    }


def test_a_bidirectional_scan_has_a_matrix_for_each_direction(tmp_path: Path) -> None:
    lstm_onnx.export(nn.LSTM(3, 4, proj_size=2, bidirectional=True), tmp_path / "m.onnx")
    names = {item.name for item in onnx.load(tmp_path / "m.onnx").graph.initializer}
    layer = parse_layer_node("l0/Scan")
    assert layer is not None
    assert {layer.weight(name, side) for name in ("R", "W_hr") for side in ("forward", "reverse")} <= names


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
