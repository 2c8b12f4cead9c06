"""Bare LSTMs as ONNX nodes: which, how they are named, and which axes are dynamic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lstm_onnx import ExportOptions, LSTMSpec
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.onnxgraph.builder import Nodes


def _export(spec: LSTMSpec, path: Path, **options: object) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}
    export_lstm(spec, ExportOptions(**options), state, path)
    onnx.checker.check_model(path, full_check=True)
    return onnx.load(path)


def _names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node]


def test_one_forward_layer_is_two_nodes(tmp_path: Path) -> None:
    model = _export(LSTMSpec(4, 3), tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph.node] == ["LSTM", "Squeeze"]
    assert _names(model) == ["l0/LSTM", "l0/output"]
    lstm, squeeze = model.graph.node
    assert list(lstm.input) == ["input", "l0/W", "l0/R", "l0/B", "", "h0", "c0"]
    assert list(lstm.output) == ["l0/LSTM/Y", "hn", "cn"]
    assert list(squeeze.output) == ["output"]
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["ints/1", "l0/B", "l0/R", "l0/W"]


def test_without_bias_the_operator_has_none(tmp_path: Path) -> None:
    model = _export(LSTMSpec(4, 3, bias=False), tmp_path / "m.onnx", lengths=True)
    assert list(model.graph.node[0].input) == ["input", "l0/W", "l0/R", "", "lengths", "h0", "c0"]


def test_nodes_are_named_for_their_layers(tmp_path: Path) -> None:
    spec = LSTMSpec(4, 3, num_layers=2, bidirectional=True, batch_first=True)
    model = _export(spec, tmp_path / "m.onnx")
    assert _names(model) == [
        "input/time_first",
        "h0/Split",
        "c0/Split",
        "l0/LSTM",
        "l0/Transpose",
        "l0/output",
        "l1/LSTM",
        "l1/Transpose",
        "l1/output",
        "hn/Concat",
        "cn/Concat",
    ]


def test_a_folded_projection_keeps_the_operator(tmp_path: Path) -> None:
    model = _export(LSTMSpec(4, 3, proj_size=1), tmp_path / "m.onnx", projection="fold")
    assert [node.op_type for node in model.graph.node] == ["MatMul", "LSTM", "MatMul", "MatMul", "Squeeze"]
    assert {"l0/unproject_h0", "l0/project", "l0/project_hn"} <= set(_names(model))


def test_a_scanned_projection_is_one_scan(tmp_path: Path) -> None:
    model = _export(LSTMSpec(4, 3, proj_size=1), tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add", "Scan", "Squeeze"]
    scan = model.graph.node[2]
    body = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
    assert all(node.name.startswith("l0/forward/") for node in body.node)
    assert not body.initializer  # matrices are shared with the outer graph, not copied into the body
    matrices = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    assert matrices["l0/R"] == (1, 12)
    assert matrices["l0/W_hr"] == (3, 1)


@pytest.mark.parametrize("spec", [LSTMSpec(4, 3), LSTMSpec(4, 3, num_layers=3, bidirectional=True, proj_size=2)])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("projection", ["scan", "fold"])
def test_two_exports_are_the_same_bytes(spec: LSTMSpec, lengths: bool, projection: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in spec.parameter_shapes().items()}
    if spec.proj_size and projection == "fold":
        state = {n: np.eye(2, 3, dtype=np.float32) if "weight_hr" in n else array for n, array in state.items()}
    options = ExportOptions(lengths=lengths, projection=projection)
    for name, given in (("a", state), ("b", dict(reversed(state.items())))):
        export_lstm(spec, options, given, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    state["weight_ih_l0"] = state["weight_ih_l0"] + 1
    export_lstm(spec, options, state, tmp_path / "c")
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("batch_first", [False, True])
def test_batch_and_time_are_open_and_named(batch_first: bool, tmp_path: Path) -> None:
    model = _export(LSTMSpec(4, 3, batch_first=batch_first), tmp_path / "m.onnx", lengths=True)

    def axes(value: onnx.ValueInfoProto) -> list[str | int]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    order = ["batch", "time"] if batch_first else ["time", "batch"]
    shapes = {value.name: axes(value) for value in (*model.graph.input, *model.graph.output)}
    assert shapes == {
        "input": [*order, 4],
        "h0": [1, "batch", 3],
        "c0": [1, "batch", 3],
        "lengths": ["batch"],
        "output": [*order, 3],
        "hn": [1, "batch", 3],
        "cn": [1, "batch", 3],
    }
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert kinds.pop("lengths") == onnx.TensorProto.INT32
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT}


def test_integers_are_shared() -> None:
    nodes = Nodes()
    assert nodes.integers(0, 0, 6) == nodes.integers(0, 0, 6) == "ints/0_0_6"
    assert nodes.integers(1) == "ints/1"
    assert {name: array.tolist() for name, array in nodes.initializers.items()} == {
        "ints/0_0_6": [0, 0, 6],
        "ints/1": [1],
    }
    assert nodes.initializers["ints/1"].dtype == np.int64
