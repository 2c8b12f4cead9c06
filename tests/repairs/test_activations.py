"""Loops of Keras' layers with other activations than the default ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import lstm_onnx
from lstm_onnx import ModelError

from .loops import FEATURES, loop_file

HARD = {"alpha": 0.2, "beta": 0.5}
HARD_3 = {"alpha": 1 / 6, "beta": 0.5}


def changed_file(path: Path, kind: str, functions: dict[str, tuple[str, dict[str, Any]]]) -> Path:
    """A loop with other functions in the places of Sigmoid and Tanh."""
    model = onnx.load(loop_file(path, kind))
    (body,) = (node.attribute[0].g for node in model.graph.node if node.op_type == "Loop")
    for node in body.node:
        if node.op_type in functions:
            op_type, attributes = functions[node.op_type]
            node.op_type = op_type
            node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    onnx.save(model, path)
    return path


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return lstm_onnx.load(path, provider="cpu", threads=1).run({"x": x})["y"]


@pytest.mark.parametrize(
    ("kind", "functions", "activations"),
    [
        ("lstm", {"Sigmoid": ("HardSigmoid", HARD)}, ["HardSigmoid", "Tanh", "Tanh"]),
        ("lstm", {"Sigmoid": ("HardSigmoid", HARD_3), "Tanh": ("Softsign", {})}, ["HardSigmoid", *["Softsign"] * 2]),
        ("gru", {"Sigmoid": ("HardSigmoid", HARD_3)}, ["HardSigmoid", "Tanh"]),
        ("gru_before", {"Tanh": ("Relu", {})}, ["Sigmoid", "Relu"]),
    ],
)
def test_a_loop_becomes_its_operator(
    tmp_path: Path, kind: str, functions: dict[str, tuple[str, dict[str, Any]]], activations: list[str]
) -> None:
    source, target = changed_file(tmp_path / "a.onnx", kind, functions), tmp_path / "b.onnx"
    lstm_onnx.repair(source, target)
    (node,) = (node for node in onnx.load(target).graph.node if node.op_type in ("LSTM", "GRU"))
    named = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    assert [name.decode() for name in named["activations"]] == activations
    x = 20 * np.random.default_rng(0).standard_normal((3, 7, FEATURES)).astype(np.float32)
    for scale in (0.05, 1):
        np.testing.assert_allclose(run(target, scale * x), run(source, scale * x), rtol=1e-5, atol=5e-6)


def test_what_only_is_alike_near_zero_is_left_as_it_is(tmp_path: Path) -> None:
    """A gate that saturates elsewhere gives what a hard sigmoid gives for small numbers."""
    source = changed_file(tmp_path / "a.onnx", "lstm", {"Sigmoid": ("HardSigmoid", HARD)})
    model = onnx.load(source)
    (body,) = (node.attribute[0].g for node in model.graph.node if node.op_type == "Loop")
    for node in list(body.node):
        if node.op_type == "HardSigmoid":
            inner = helper.make_node("Clip", [node.input[0], "low", "high"], [f"{node.output[0]}_clipped"])
            body.node.insert(list(body.node).index(node), inner)
            node.input[0] = inner.output[0]
    for name, value in (("low", -2.4), ("high", 2.4)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    onnx.save(model, source)
    run(source, np.ones((2, 4, FEATURES), np.float32))  # it is a file that runs
    with pytest.raises(ModelError, match="nothing to repair: it has no LSTM, GRU or RNN"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")


@pytest.mark.parametrize(("kind", "state"), [("lstm", "c_next"), ("rnn", "h_next")])
def test_a_limit_that_no_small_number_reaches_is_left_as_it_is(tmp_path: Path, kind: str, state: str) -> None:
    """A cell state that is clipped, and a clipped relu."""
    source = changed_file(tmp_path / "a.onnx", kind, {"Tanh": ("Relu", {})} if kind == "rnn" else {})
    model = onnx.load(source)
    (body,) = (node.attribute[0].g for node in model.graph.node if node.op_type == "Loop")
    place, made = next((at, node) for at, node in enumerate(body.node) if state in node.output)
    made.output[0] = "unlimited"
    body.node.insert(place + 1, helper.make_node("Clip", ["unlimited", "low", "high"], [state]))
    for name, value in (("low", -20), ("high", 20)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    onnx.save(model, source)
    run(source, np.ones((2, 4, FEATURES), np.float32))  # it is a file that runs
    with pytest.raises(ModelError, match="nothing to repair: it has no LSTM, GRU or RNN"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")


@pytest.mark.parametrize("condition", ["IsNaN", "Equal"])
def test_a_step_with_a_condition_that_few_numbers_meet_is_left_as_it_is(tmp_path: Path, condition: str) -> None:
    """Numbers that are missing are zeros: NaN, or one that stands for it."""
    source = loop_file(tmp_path / "a.onnx", "rnn")
    model = onnx.load(source)
    (body,) = (node.attribute[0].g for node in model.graph.node if node.op_type == "Loop")
    place, made = next((at, node) for at, node in enumerate(body.node) if "x_t" in node.output)
    made.output[0] = "given"
    asked = ["given", "absent"] if condition == "Equal" else ["given"]
    body.node.insert(place + 1, helper.make_node(condition, asked, ["missing"]))
    body.node.insert(place + 2, helper.make_node("Where", ["missing", "nothing", "given"], ["x_t"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1), "absent"))
    onnx.save(model, source)
    run(source, np.ones((2, 4, FEATURES), np.float32))  # it is a file that runs
    with pytest.raises(ModelError, match="nothing to repair: it has no LSTM, GRU or RNN"):
        lstm_onnx.repair(source, tmp_path / "b.onnx")
