"""Unrolled loops are found behind copies, computed sizes, conditions that always hold, and whole products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import lstm_onnx

from .loops import FEATURES, UNITS, drawn, loop_file, node

STEPS = 4


def keras_on_torch(path: Path, *, batch: int | str = "n", least: int = 0) -> Path:
    """Write an LSTM as Keras' PyTorch back end does: ``x (batch, 4, 5)`` in, ``y (batch, 4, 4)`` out.

    A step gives its state if there are more than `least` steps, and else keeps the state before.
    """
    gates = 4 * UNITS
    numbers = {f"n{value}": np.array([value]) for value in range(STEPS + 1)}
    stored = {
        "kernel": drawn(FEATURES, gates, seed=1),
        "recurrent": drawn(UNITS, gates, seed=2),
        "bias": drawn(gates, seed=3),
        **numbers,
        **{f"step{value}": np.array(value) for value in range(STEPS)},
        "width": np.array([UNITS]),
        "least": np.array(least),
        "first": np.array(0),
    }
    nodes = [
        node("Cast", "x", "x_float", to=TensorProto.FLOAT),
        node("Shape", "x_float", "sizes"),
        node("Gather", "sizes n0", "rows"),
        node("Concat", "rows width", "state_shape", axis=0),
        node("ConstantOfShape", "state_shape", "zeros"),
        node("Identity", "zeros", "zeros_too"),
        node("Transpose", "x_float", "steps_first", perm=[1, 0, 2]),
        node("MatMul", "steps_first kernel", "product"),
        node("Add", "product bias", "of_x"),
        node("Shape", "steps_first", "time_sizes"),
        node("Gather", "time_sizes first", "time"),
        node("Greater", "time least", "goes_on"),
    ]
    h, c = "zeros", "zeros_too"
    for t in range(STEPS):
        nodes += _step(t, h, c)
        h, c = f"h{t}", f"c{t}"
    nodes += [node("Unsqueeze", f"h{t} n0", f"u{t}") for t in range(STEPS)]
    nodes.append(helper.make_node("Concat", [f"u{t}" for t in range(STEPS)], ["ys"], axis=0))
    nodes.append(node("Transpose", "ys", "y", perm=[1, 0, 2]))
    graph = helper.make_graph(
        nodes,
        "keras",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, STEPS, FEATURES))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, STEPS, UNITS))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _step(t: int, h: str, c: str) -> list[NodeProto]:
    return [
        node("Gather", f"of_x step{t}", f"x{t}", axis=0),
        node("Identity", "recurrent", f"recurrent{t}"),
        node("MatMul", f"{h} recurrent{t}", f"of_h{t}"),
        node("Add", f"x{t} of_h{t}", f"all{t}"),
        node("Shape", f"all{t}", f"sizes{t}"),
        node("Gather", f"sizes{t} n1", f"wide{t}"),
        node("Div", f"wide{t} n4", f"part{t}"),
        *(node("Mul", f"part{t} n{end}", f"end{t}_{end}") for end in range(5)),
        *(
            node("Slice", f"all{t} end{t}_{gate} end{t}_{gate + 1} n1", f"{name}{t}")
            for gate, name in enumerate(("i", "f", "g", "o"))
        ),
        *(node("Sigmoid", f"{name}{t}", f"{name}{t}_") for name in "ifo"),
        node("Tanh", f"g{t}", f"g{t}_"),
        node("Mul", f"f{t}_ {c}", f"kept{t}"),
        node("Mul", f"i{t}_ g{t}_", f"written{t}"),
        node("Add", f"kept{t} written{t}", f"new_c{t}"),
        node("Tanh", f"new_c{t}", f"shown{t}"),
        node("Mul", f"o{t}_ shown{t}", f"new_h{t}"),
        node("Where", f"goes_on new_h{t} {h}", f"h{t}"),
        node("Where", f"goes_on new_c{t} {c}", f"c{t}"),
    ]


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return lstm_onnx.load(path, provider="cpu", threads=1).run({"x": x})["y"]


def test_it_is_one_operator(tmp_path: Path):
    source, target = keras_on_torch(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    result = lstm_onnx.repair(source, target)
    assert list(result.operators.values()) == ["LSTM"]
    assert len(result.states) == 2
    kinds = [item.op_type for item in onnx.load(target).graph.node]
    assert kinds.count("LSTM") == 1
    assert not {"Slice", "Where", "MatMul", "Concat", "Split"} & set(kinds)
    x = np.random.default_rng(5).standard_normal((3, STEPS, FEATURES)).astype(np.float32)
    np.testing.assert_allclose(run(target, x), run(source, x), atol=2e-6)


def test_a_condition_that_never_holds_is_not_taken_for_one_that_does(tmp_path: Path):
    source = keras_on_torch(tmp_path / "a.onnx", least=STEPS)
    x = np.ones((2, STEPS, FEATURES), np.float32)
    assert not run(source, x).any()  # no step gives its state
    with pytest.raises(lstm_onnx.ModelError, match="no loop that was recognised as one"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")


def two_sequences(path: Path, most: int, *, batches: str) -> Path:
    """Write two RNNs, each on the first `most` steps of its own input, and the number of steps that the first takes."""
    nodes = []
    for name in "ab":
        nodes += [
            node("Shape", name, f"{name}_sizes"),
            node("Slice", f"{name}_sizes n1 n2", f"{name}_time"),
            node("Min", f"{name}_time most", f"{name}_steps"),
            node("Slice", f"{name} n0 {name}_steps n1", f"{name}_cut"),
            node("Transpose", f"{name}_cut", f"{name}_steps_first", perm=[1, 0, 2]),
            node("RNN", f"{name}_steps_first W R", f"{name}_y", hidden_size=UNITS, name=name),
        ]
    nodes.append(node("Identity", "a_time", "steps"))
    stored = {"n0": np.array([0]), "n1": np.array([1]), "n2": np.array([2]), "most": np.array([most])}
    stored |= {"W": drawn(1, UNITS, FEATURES), "R": drawn(1, UNITS, UNITS)}
    graph = helper.make_graph(
        nodes,
        "two",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, (batch, f"{name}_t", FEATURES))
            for name, batch in zip("ab", batches, strict=True)
        ],
        [
            helper.make_tensor_value_info("a_y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("b_y", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("steps", TensorProto.INT64, (1,)),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("batches", ["nn", "nm"])  # the latter as tf2onnx names axes
@pytest.mark.parametrize("most", [500, 1500])
def test_sizes_that_are_equal_by_chance_stay_apart(tmp_path: Path, batches: str, most: int):
    source, target = two_sequences(tmp_path / "a.onnx", most=most, batches=batches), tmp_path / "b.onnx"
    assert len(lstm_onnx.repair(source, target).states) == 2
    outputs = lstm_onnx.load(target, provider="cpu", threads=1).outputs
    assert not {"a_t", "b_t"} & {*outputs["a_y"].shape, *outputs["b_y"].shape}
    rng = np.random.default_rng(0)
    for times in ((3, 7), (7, 3), (most + 100, 4), (4, most + 100)):
        feeds = {
            name: rng.standard_normal((2, time, FEATURES)).astype(np.float32)
            for name, time in zip("ab", times, strict=True)
        }
        wanted, found = (lstm_onnx.load(path, provider="cpu", threads=1).run(feeds) for path in (source, target))
        assert all(np.array_equal(array, found[name]) for name, array in wanted.items())


def test_sequences_that_must_have_one_length_are_compared_at_large_ones(tmp_path: Path):
    source = loop_file(tmp_path / "a.onnx", "rnn", outer=(node("Min", "n_steps most", "steps"),))
    model = onnx.load(source)
    next(item for item in model.graph.node if item.op_type == "Loop").input[0] = "steps"
    model.graph.node.append(node("Mul", "x mask", "masked"))
    model.graph.initializer.append(numpy_helper.from_array(np.int64(500), "most"))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ("mask_n", "mask_t", FEATURES)))
    model.graph.output.append(helper.make_tensor_value_info("masked", TensorProto.FLOAT, None))
    onnx.save(model, source)
    with pytest.raises(lstm_onnx.ModelError, match="y has shape"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")


def test_of_two_equal_nodes_each_output_is_read_that_one_of_them_names(tmp_path: Path):
    nodes = [
        node("Transpose", "x", "steps_first", perm=[1, 0, 2]),
        helper.make_node("RNN", ["steps_first", "W", "R"], ["y", ""], hidden_size=UNITS, name="one"),
        helper.make_node("RNN", ["steps_first", "W", "R"], ["", "last"], hidden_size=UNITS, name="two"),
        node("Tanh", "last", "end"),
    ]
    stored = {"W": drawn(1, UNITS, FEATURES), "R": drawn(1, UNITS, UNITS)}
    graph = helper.make_graph(
        nodes,
        "equal",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", "t", FEATURES))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "end")],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "a.onnx")
    assert len(lstm_onnx.repair(tmp_path / "a.onnx", tmp_path / "b.onnx").states) == 2
