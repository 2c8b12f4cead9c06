"""Copies of files with sizes in the place of named axes, in bodies too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.onnxgraph import graphs_of
from lstm_onnx.parity.runtimes.tract import write_fixed
from tests.runtime.models import exported


def dims(path: Path) -> set[str]:
    model = onnx.load(path)
    values = [value for graph in graphs_of(model.graph) for value in (*graph.input, *graph.output, *graph.value_info)]
    return {dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim}


def test_named_axes_become_sizes_in_all_graphs(tmp_path: Path):
    exported(tmp_path / "m.onnx", hidden_size=8, proj_size=3)
    assert {"time", "batch"} <= dims(tmp_path / "m.onnx")
    feeds = {
        "input": np.zeros((6, 2, 4), np.float32),
        "h0": np.zeros((1, 2, 3), np.float32),
        "c0": np.zeros((1, 2, 8), np.float32),
    }
    write_fixed(tmp_path / "m.onnx", tmp_path / "fixed.onnx", feeds)
    assert dims(tmp_path / "fixed.onnx") == {""}
    model = onnx.load(tmp_path / "fixed.onnx")
    body = next(graph for graph in graphs_of(model.graph) if graph is not model.graph)
    state = body.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in state.dim] == [1, 2, 3]
    (first, *_) = model.graph.input
    assert [dim.dim_value for dim in first.type.tensor_type.shape.dim] == [6, 2, 4]
    onnx.checker.check_model(model, full_check=True)


def test_expressions_become_their_value_and_unknown_names_are_removed(tmp_path: Path):
    info = helper.make_tensor_value_info
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    stored = numpy_helper.from_array(np.array([-1, 4], np.int64), "shape")
    x = info("x", TensorProto.FLOAT, ["batch", "time", 4])
    graph = helper.make_graph([node], "graph", [x], [info("y", TensorProto.FLOAT, ["batch*time", "other"])], [stored])
    onnx.save(helper.make_model(graph, ir_version=10), tmp_path / "m.onnx")
    write_fixed(tmp_path / "m.onnx", tmp_path / "fixed.onnx", {"x": np.zeros((3, 5, 4), np.float32)})
    (y,) = onnx.load(tmp_path / "fixed.onnx").graph.output
    assert [(dim.dim_value, dim.dim_param) for dim in y.type.tensor_type.shape.dim] == [(15, ""), (0, "")]
