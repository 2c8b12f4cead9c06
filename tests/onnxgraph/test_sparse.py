"""Sparse tensors become ordinary ones, which all tools take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx.errors import ModelError
from lstm_onnx.onnxgraph.load import read_weights

ROWS = np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]], np.float32)


def sparse(name: str, indices: np.ndarray, shape: tuple[int, ...] = ROWS.shape) -> SparseTensorProto:
    values = numpy_helper.from_array(np.array([2.0, 3.0], np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(indices), shape)


def model(*tensors: SparseTensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [], [], sparse_initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("indices", [np.array([1, 3]), np.array([[0, 1], [1, 0]])], ids=["places", "rows"])
def test_they_are_read_as_ordinary_ones(indices: np.ndarray) -> None:
    constant = helper.make_node("Constant", [], ["c"], sparse_value=sparse("", indices))
    source = model(sparse("w", indices), nodes=(constant,))
    weights = read_weights(source, "m.onnx")
    np.testing.assert_array_equal(weights["w"], ROWS)
    np.testing.assert_array_equal(numpy_helper.to_array(source.graph.node[0].attribute[0].t), ROWS)
    assert not source.graph.sparse_initializer


@pytest.mark.parametrize(
    ("indices", "shape"),
    [(np.array([1, 6]), (2, 3)), (np.array([[0, 1], [2, 0]]), (2, 3)), (np.array([0, 1]), (2**40,))],
    ids=["outside", "outside by rows", "a terabyte"],
)
def test_what_cannot_be_read_is_refused(indices: np.ndarray, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: its weights cannot be read"):
        read_weights(model(sparse("w", indices, shape)), "m.onnx")


def test_the_tools_take_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w, r = (rng.standard_normal((1, 16, size)).astype(np.float32) for size in (3, 4))
    w[np.abs(w) < 0.7] = 0
    places = np.flatnonzero(w)
    stored = helper.make_sparse_tensor(
        numpy_helper.from_array(w.reshape(-1)[places], "W"), numpy_helper.from_array(places), w.shape
    )
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R"], ["y"], "lstm", hidden_size=4)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", 1, "batch", 4])],
        [numpy_helper.from_array(r, "R")],
        sparse_initializer=[stored],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    x = rng.standard_normal((4, 2, 3)).astype(np.float32)
    right = lstm_onnx.load(path, trial=False).run({"x": x})["y"]
    lstm_onnx.make_streaming(path, tmp_path / "s.onnx", time={"x": 0}, trial=False)
    lstm_onnx.repair(path, tmp_path / "r.onnx", trial=False)
    lstm_onnx.quantize(path, tmp_path / "q.onnx", trial=False)
    for name, far in (("s", 1e-6), ("r", 1e-6), ("q", 0.1)):
        found = lstm_onnx.load(tmp_path / f"{name}.onnx").run({"x": x})["y"]
        np.testing.assert_allclose(found, right, atol=far, err_msg=name)
