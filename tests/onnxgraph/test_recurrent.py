"""The one reader of recurrent layers: operators, the projected layer's Scan, a folded projection, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.emitter import StackOutputs, recurrent_stack
from lstm_onnx.exporter.targets import LayerForm
from lstm_onnx.exporter.weights import layer_weights
from lstm_onnx.onnxgraph.builder import Nodes
from lstm_onnx.onnxgraph.recurrent import (
    RecurrentLayer,
    batch_axis,
    final_states,
    initial_states,
    is_onnx_operator,
    is_operator,
    module_path,
    read_layer,
    scanned_inputs,
)
from lstm_onnx.spec import ExportOptions, GRUSpec, LSTMSpec, RecurrentSpec, RNNSpec

INPUTS = ("X", "W", "R", "B", "lens", "h", "c")


def node(op_type: str, *inputs: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(op_type, inputs, ["Y", "Y_h", "Y_c"], "n", domain=domain, **attributes)


def exported(folder: Path, options: ExportOptions, **sizes: Any) -> tuple[onnx.ModelProto, list[RecurrentLayer]]:
    spec = LSTMSpec(4, 5, proj_size=2, **sizes)
    rng = np.random.default_rng(0)
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}
    export_lstm(spec, options, state, folder / "m.onnx")
    model = onnx.load(folder / "m.onnx")
    producers = {value: node for node in model.graph.node for value in node.output}
    layers = [read_layer(node, producers) for node in model.graph.node]
    return model, [layer for layer in layers if layer is not None]


@pytest.mark.parametrize("kind", [LSTMSpec, GRUSpec, RNNSpec])
@pytest.mark.parametrize("directions", [1, 2])
def test_the_scan_of_a_layer_without_projection(kind: type[RecurrentSpec], directions: int):
    spec = kind(4, 5, bidirectional=directions == 2)
    rng = np.random.default_rng(0)
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}
    nodes = Nodes()
    names = StackOutputs("output", "hn", "cn" if spec.has_cell else None)
    form = LayerForm(scan=True)
    states = ("h0", "c0" if spec.has_cell else None)
    layers = [layer_weights(spec, state, 0)]
    recurrent_stack(nodes, spec, layers, "x", *states, lengths="lengths", form=form, names=names)
    producers = {value: node for node in nodes.nodes for value in node.output}
    (layer,) = [found for node in nodes.nodes if (found := read_layer(node, producers)) is not None]
    assert (layer.op_type, layer.scan, layer.directions, layer.hidden_size) == (spec.op_type, True, directions, 5)
    sides = ["forward", "reverse"][:directions]
    suffixes = [""] if directions == 1 else ["_forward", "_reverse"]
    assert [port.value for port in layer.R] == [f"l0/R{suffix}" for suffix in suffixes]
    biases = [f"l0/Rb{suffix}" for suffix in suffixes] if spec.op_type == "GRU" else []
    assert [port.value for port in layer.Rb] == biases
    assert ([port.value for port in (*layer.W, *layer.B)], layer.W_hr) == (["l0/W", "l0/B"], ())
    assert len(layer.initial("h")) == len(layer.final("h")) == directions
    assert len(layer.initial("c")) == len(layer.final("c")) == (directions if spec.has_cell else 0)
    assert layer.y == [f"l0/Scan/y_{side}" for side in sides]
    assert layer.lengths is not None
    assert layer.lengths.value == "valid"


@pytest.mark.parametrize(("op_type", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_an_operator(op_type: str, gates: int):
    layer = read_layer(node(op_type, *INPUTS, hidden_size=3, direction="bidirectional"), {})
    assert layer is not None
    assert (layer.op_type, layer.gates, layer.directions, layer.hidden_size) == (op_type, gates, 2, 3)
    assert [port.value for port in (*layer.W, *layer.R, *layer.B)] == ["W", "R", "B"]
    assert (layer.x, layer.y, layer.direction, layer.scan) == ("X", ["Y"], "bidirectional", False)
    assert layer.lengths is not None
    assert layer.lengths.value == "lens"
    # Only an LSTM has a cell, whatever else the node lists.
    assert [port.value for port in layer.initial("h")] == ["h"]
    assert [port.value for port in layer.initial("c")] == (["c"] if op_type == "LSTM" else [])
    assert [port.value for port in layer.final("h")] == ["Y_h"]
    assert [port.value for port in layer.final("c")] == (["Y_c"] if op_type == "LSTM" else [])


def test_inputs_that_are_left_out():
    layer = read_layer(node("LSTM", "X", "W", "R"), {})
    assert layer is not None
    assert (layer.B, layer.lengths, layer.initial("h"), layer.initial("c")) == ((), None, [], [])
    assert (layer.hidden_size, layer.direction) == (0, "forward")
    empty = read_layer(helper.make_node("LSTM", [], []), {})
    assert empty is not None
    assert (empty.x, empty.y, empty.name) == ("", [], "LSTM of nothing")


def test_a_port_rewires_its_node():
    lstm = node("LSTM", *INPUTS)
    layer = read_layer(lstm, {})
    assert layer is not None
    layer.R[0].value = "other"
    layer.final("h")[0].value = "last"
    assert (lstm.input[2], lstm.output[1]) == ("other", "last")


def test_domains_and_other_operators():
    assert is_operator(node("DynamicQuantizeLSTM", *INPUTS, domain="com.microsoft"))
    assert not is_onnx_operator(node("DynamicQuantizeLSTM", *INPUTS, domain="com.microsoft"))
    assert not is_operator(node("LSTM", *INPUTS, domain="my.ops"))
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
    for other in (node("Relu", "X"), node("Scan", "h", "X", body=body, num_scan_inputs=1), node("Scan", "h", "X")):
        assert read_layer(other, {}) is None


def test_axes_and_states():
    assert [batch_axis(node("LSTM", *INPUTS, **extra)) for extra in ({}, {"layout": 0}, {"layout": 1})] == [1, 1, 0]
    assert initial_states(node("LSTM", *INPUTS)) == ["h", "c"]
    assert final_states(node("LSTM", *INPUTS)) == ["Y_h", "Y_c"]
    scan = node("Scan", "h", "c", "x", num_scan_inputs=1)
    assert (scanned_inputs(scan), initial_states(scan), final_states(scan)) == (["x"], ["h", "c"], ["Y", "Y_h", "Y_c"])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_the_scan_of_a_projected_layer(bidirectional: bool, lengths: bool, tmp_path: Path):
    model, layers = exported(tmp_path, ExportOptions(lengths=lengths), bidirectional=bidirectional, num_layers=2)
    count = 2 if bidirectional else 1
    suffixes = ("_forward", "_reverse") if bidirectional else ("",)
    assert [layer.name for layer in layers] == ["l0/Scan", "l1/Scan"]
    first = layers[0]
    assert (first.op_type, first.scan, first.directions, first.hidden_size) == ("LSTM", True, count, 5)
    assert [port.value for port in (*first.W, *first.B)] == ["l0/W", "l0/B"]
    assert [port.value for port in first.R] == [f"l0/R{suffix}" for suffix in suffixes]
    assert [port.value for port in first.W_hr] == [f"l0/W_hr{suffix}" for suffix in suffixes]
    assert (first.lengths is not None) is lengths
    assert len(first.initial("h")) == len(first.final("c")) == count
    assert len([node for node in model.graph.node if node.op_type == "Scan"]) == 2


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_folded_projection(bidirectional: bool, tmp_path: Path):
    model, (layer,) = exported(tmp_path, ExportOptions(projection="fold"), bidirectional=bidirectional)
    producers = {value: node for node in model.graph.node for value in node.output}
    pseudo_inverse, projection = layer.folded_projection(model.graph.node, producers)
    assert {port.value for port in pseudo_inverse} == {"l0/W_hr_pinv"}
    assert {port.value for port in projection} == {"l0/W_hr"}
    # A MatMul of another name after a layer is not a projection of ours.
    for each in model.graph.node:
        each.name = each.name.replace("project", "dense")
    assert layer.folded_projection(model.graph.node, producers) == ((), ())


def test_a_scan_that_lacks_the_cell_s_size_is_another_one(tmp_path: Path):
    model, _ = exported(tmp_path, ExportOptions())
    scan = next(node for node in model.graph.node if node.op_type == "Scan")
    producers = {value: node for node in model.graph.node for value in node.output}
    assert read_layer(scan, producers) is not None
    body = next(item.g for item in scan.attribute if item.name == "body")
    body.output[1].CopyFrom(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
    assert read_layer(scan, producers) is None


@pytest.mark.parametrize(
    ("name", "path"),
    [("l0/LSTM", ""), ("encoder/rnn/l1/GRU", "encoder.rnn"), ("lstm/call2/l0/Scan", "lstm"), ("then", None)],
)
def test_the_module_of_a_node(name: str, path: str | None):
    assert module_path(name) == path
