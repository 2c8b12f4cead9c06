"""Mistakes in peepholes and in the place of a GRU's reset gate, and where they change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.graph_edit import known_shapes
from lstm_onnx.parity.mutants.self_test import mutated

HIDDEN, FEATURES = 3, 2


def model(op_type: str, arrays: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    inputs = ["x", "W", "R", "B", "", "", "", "P"] if "P" in arrays else ["x", "W", "R", "B"]
    node = helper.make_node(op_type, inputs, ["y"], name="layer", hidden_size=HIDDEN, **attributes)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [info("x", TensorProto.FLOAT, ["time", 2, FEATURES])],
        [info("y", TensorProto.FLOAT, ["time", 1, 2, HIDDEN])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def weights(gates: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).standard_normal
    width = gates * HIDDEN
    return {"W": draw((1, width, FEATURES)), "R": draw((1, width, HIDDEN)), "B": draw((1, 2 * width))}


def lstm(**changes: np.ndarray) -> onnx.ModelProto:
    peepholes = np.random.default_rng(1).standard_normal((1, 3 * HIDDEN))
    return model("LSTM", {**weights(4), "P": peepholes, **changes})


def apply(name: str, graph: onnx.ModelProto) -> tuple[Any, onnx.ModelProto]:
    mutator = next(mutator for mutator in MUTATORS if mutator.name == name)
    return mutated(graph, mutator, 0, "", known_shapes(graph))


def output(graph: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(2).standard_normal((5, 2, FEATURES)).astype(np.float32)
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("peepholes dropped", lstm()),
        ("peepholes misordered", lstm()),
        ("reset gate misplaced", model("GRU", weights(3))),
        ("reset gate misplaced", model("GRU", weights(3), linear_before_reset=1)),
    ],
)
def test_a_mistake_changes_the_output(name: str, graph: onnx.ModelProto) -> None:
    outcome, copy = apply(name, graph)
    assert outcome.applied
    assert np.abs(output(copy) - output(graph)).max() > 1e-3


def gru_of_diagonal() -> onnx.ModelProto:
    arrays = weights(3)
    arrays["R"][0, 2 * HIDDEN :] = np.diag([1.0, 2.0, 3.0])
    arrays["B"][0, -HIDDEN:] = 0
    return model("GRU", arrays)


@pytest.mark.parametrize(
    ("name", "graph", "reason"),
    [
        ("peepholes dropped", lstm(P=np.zeros((1, 9))), "its peepholes are zeros"),
        (
            "peepholes misordered",
            lstm(P=np.ones((1, 9))),
            "the output and the forget gate have the same peepholes",
        ),
        ("reset gate misplaced", gru_of_diagonal(), "R of the new state has no entries off its diagonal"),
    ],
)
def test_what_is_no_mistake_is_told_and_is_none(name: str, graph: onnx.ModelProto, reason: str) -> None:
    outcome, _ = apply(name, graph)
    assert (outcome.applied, outcome.reason) == (False, reason)


def test_the_place_of_the_reset_gate_changes_nothing_for_a_diagonal() -> None:
    graph = gru_of_diagonal()
    before = output(graph)
    graph.graph.node[0].attribute.add(name="linear_before_reset", i=1, type=2)
    np.testing.assert_allclose(output(graph), before, rtol=1e-6, atol=1e-7)


def test_they_are_absent_elsewhere() -> None:
    assert not apply("peepholes dropped", model("LSTM", weights(4)))[0].applied
    assert not apply("reset gate misplaced", lstm())[0].applied
