"""Weights that other tools store in a smaller dtype, joined or transposed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import lstm_onnx

SIZE = 24
RNG = np.random.default_rng(0)
W, R = ((RNG.standard_normal((1, 4 * SIZE, SIZE)) / 4).astype(np.float32) for _ in range(2))
HEAD = (RNG.standard_normal((SIZE, 64)) / 4).astype(np.float32)
B = np.zeros((1, 8 * SIZE), np.float32)
SCALE = np.array(0.01, np.float32)


def eighth(array: np.ndarray) -> np.ndarray:
    return np.clip(np.round(array / SCALE), -128, 127).astype(np.int8)


def cast(name: str) -> NodeProto:
    return helper.make_node("Cast", [f"{name}16"], [name], name=f"cast_{name}", to=TensorProto.FLOAT)


def dequantized(name: str) -> NodeProto:
    return helper.make_node("DequantizeLinear", [f"{name}8", "scale"], [name], name=f"dequantized_{name}")


def split(*more: str) -> NodeProto:
    return helper.make_node("Split", ["WR", *more], ["W", "R"], name="split", axis=2)


def saved(
    nodes: Sequence[NodeProto], stored: dict[str, np.ndarray], path: Path, after: Sequence[NodeProto] = ()
) -> Path:
    """A file of an LSTM by W, R and B and of a MatMul by head, which `nodes` compute where they are not stored."""
    layers = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["ys"], name="lstm", hidden_size=SIZE),
        helper.make_node("Squeeze", ["ys", "axes"], ["y"], name="squeezed"),
        helper.make_node("MatMul", ["y", "head"], ["out"], name="out"),
    ]
    arrays = {"W": W, "R": R, "B": B, "head": HEAD, "axes": np.array([1])}
    made = {name for node in nodes for name in node.output}
    arrays = {name: array for name, array in arrays.items() if name not in made} | stored
    graph = helper.make_graph(
        [*nodes, *layers, *after],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", SIZE])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["time", "batch", 64])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


JOINED = np.concatenate([W, R], 2)
STORED = {
    "float16": (
        [cast("W"), cast("R"), cast("head")],
        {"W16": W.astype(np.float16), "R16": R.astype(np.float16), "head16": HEAD.astype(np.float16)},
    ),
    "int8": (
        [dequantized("W"), dequantized("R"), dequantized("head")],
        {"W8": eighth(W), "R8": eighth(R), "head8": eighth(HEAD), "scale": SCALE},
    ),
    "joined": ([split()], {"WR": JOINED}),
    "joined with sizes": ([split("sizes")], {"WR": JOINED, "sizes": np.array([SIZE, SIZE])}),
    "transposed": ([helper.make_node("Transpose", ["turned"], ["head"], perm=[1, 0])], {"turned": HEAD.T.copy()}),
}


@pytest.mark.parametrize("case", STORED)
def test_the_weights_become_int8_and_what_computed_them_is_gone(case: str, tmp_path: Path) -> None:
    nodes, stored = STORED[case]
    result = lstm_onnx.quantize(saved(nodes, stored, tmp_path / "m.onnx"), tmp_path / "q.onnx")
    assert (set(result.quantized), result.kept) == ({"lstm", "out"}, {})
    written = onnx.load(tmp_path / "q.onnx").graph
    assert not {node.name for node in nodes} & {node.name for node in written.node}
    assert not stored.keys() & {tensor.name for tensor in written.initializer}


WIDE = [
    helper.make_node("Cast", ["y"], ["y64"], name="wide", to=TensorProto.DOUBLE),
    helper.make_node("MatMul", ["y64", "head64"], ["found"], name="wide_product"),
]


def test_what_stays_as_it_is_is_said_by_name(tmp_path: Path) -> None:
    squared = helper.make_node("Mul", ["a", "a"], ["head"], name="squared")
    path = saved([squared], {"a": HEAD, "head64": HEAD.astype(np.float64)}, tmp_path / "m.onnx", WIDE)
    result = lstm_onnx.quantize(path, tmp_path / "q.onnx")
    assert result.quantized == ("lstm",)
    assert result.kept == {"out": "its weights are computed, by squared", "wide_product": "its weights are float64"}
