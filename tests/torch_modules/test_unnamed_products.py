"""Products of others' files, whose nodes have no names, and whose biases are called anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import lstm_onnx


@pytest.mark.parametrize("names", [("", ""), ("dense/MatMul", "dense/MatMul_1"), ("/fc/MatMul", "/fc/MatMul_1")])
@pytest.mark.parametrize("biases", [(), ("b1", "b2"), ("bias", "weight"), ("dense/bias:0", "dense_1/bias:0")])
def test_each_product_has_its_own_matrix(biases: tuple[str, ...], names: tuple[str, str], tmp_path: Path) -> None:
    """Matrices of one shape were stored under one name, and a bias under its matrix's; layers may have two products."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 16, 3), "R": (1, 16, 4), "A": (4, 4), "B": (4, 4), **dict.fromkeys(biases, (4,))}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=4),
        helper.make_node("Squeeze", ["y", "axes"], ["value"]),
    ]
    value = "value"
    for number, matrix in enumerate("AB"):
        nodes.append(helper.make_node("MatMul", [value, matrix], [value := f"product{number}"], names[number]))
        if biases:
            nodes.append(helper.make_node("Add", [value, biases[number]], [value := f"sum{number}"]))
        nodes.append(helper.make_node("Tanh", [value], [value := f"tanh{number}"]))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["time", "batch", size])
        for name, size in (("x", 3), (value, 4))
    ]
    stored = [numpy_helper.from_array(array, name) for name, array in {**arrays, "axes": np.array([1])}.items()]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], stored)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    x = rng.standard_normal((5, 2, 3)).astype(np.float32)
    expected = lstm_onnx.load(path, provider="cpu", threads=1).run({"x": x})[value]
    with torch.no_grad():
        found = lstm_onnx.to_torch(path).eval()(torch.from_numpy(x))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
