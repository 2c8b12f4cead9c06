"""The rules on stored numbers: what is stored twice, what is not a number, what fits no operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.check import CheckReport, check
from tests.conformance.by_hand import SIZE, H, graph_of, inputs_of
from tests.conformance.nodes import Node, save

from ..models import failing
from ..violations import CASES, Case, all_of, base, large, nothing, quantized, store, then


def said(report: CheckReport, rule: str) -> list[str]:
    return [
        f"{finding.where}: {finding.message}"
        for finding in report.findings
        if finding.rule == rule and finding.violated
    ]


def checked(folder: Path, *edits: Any) -> CheckReport:
    return check(base(folder, Case(nothing), all_of(*edits)), provider="cpu")


# --- The same bytes again ---


def test_weights_that_are_stored_twice_are_counted(tmp_path: Path):
    case = CASES["doubled-weights"]
    report = check(base(tmp_path, case, case.breaks), provider="cpu")
    (message,) = said(report, "doubled-weights")
    # W (1, 48, 8) and R (1, 48, 12); the biases are too small to tell.
    assert message == f"W2: {4 * 48 * (8 + 12)} bytes are stored again: W2 is W, R2 is R"


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((1, 48, 8), np.float32),  # other numbers
        np.ones((1, 8, 48), np.float32),  # another shape
        np.ones((1, 48, 8), np.float64),  # another type, and so other bytes
    ],
)
def test_weights_that_are_others_are_no_copies(other: np.ndarray, tmp_path: Path):
    case = Case(nothing, source=large)
    edit = all_of(store(W=np.ones((1, 48, 8), np.float32), W3=other), then("Shape", source="W3", rank=1))
    path = base(tmp_path, case, edit)
    assert "doubled-weights" in check(path, provider="cpu").silent


def test_small_and_flat_tensors_may_be_equal(tmp_path: Path):
    """Biases of zeros, shapes and the like."""
    zeros = {name: np.zeros((1, 600), np.float32) for name in ("a", "b")}
    small = {name: np.ones((10, 10), np.float32) for name in ("c", "d")}
    report = checked(tmp_path, store(**zeros, **small))
    assert "doubled-weights" in report.silent


# --- No numbers ---


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["W", "R", "B"])
def test_a_weight_that_is_no_number(name: str, wrong: float, tmp_path: Path):
    array = inputs_of()[name]
    array.flat[[1, 5]] = wrong
    text = failing(checked(tmp_path, store(**{name: array})), "non-finite-weights")
    assert text == f"{name}: 2 of its {array.size} numbers are NaN or infinite"


def test_a_weight_behind_a_cast_is_a_weight(tmp_path: Path):
    """As of a file whose weights overflowed in float16."""
    path = base(tmp_path, Case(nothing), nothing)
    model = onnx.load_model(path)
    array = inputs_of()["W"].astype(np.float16)
    array.flat[1] = np.inf
    store(W16=array)(model)
    model.graph.initializer.remove(next(item for item in model.graph.initializer if item.name == "W"))
    model.graph.node.insert(0, helper.make_node("Cast", ["W16"], ["W"], to=TensorProto.FLOAT))
    onnx.save_model(model, path)
    assert "W16: 1 of its" in failing(check(path, provider="cpu"), "non-finite-weights")


def test_an_infinity_may_be_a_mask(tmp_path: Path):
    mask = np.array([0, -np.inf, 0], np.float32)
    report = checked(tmp_path, store(mask=mask), then("Add", "mask"))
    assert report, str(report)
    assert "non-finite-weights" in report.silent
    report = checked(tmp_path, store(mask=np.array([0, np.nan, 0], np.float32)), then("Add", "mask"))
    assert "mask: 1 of its 3 numbers" in failing(report, "non-finite-weights")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_of_any_precision(kind: int, tmp_path: Path):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    inputs = {name: array.astype(dtype) for name, array in inputs_of().items()}
    inputs["R"].flat[0] = np.nan
    path = Node(inputs).save(tmp_path / "m.onnx", opset=22, dtype=kind)
    assert "R: 1 of its 36 numbers" in failing(check(path, provider="cpu"), "non-finite-weights")


def test_a_weight_in_another_file_is_looked_at(tmp_path: Path):
    path = base(tmp_path, Case(nothing), nothing)
    model = onnx.load_model(path)
    array = numpy_helper.to_array(model.graph.initializer[1]).copy()
    array.flat[3] = np.nan
    store(R=array)(model)
    onnx.save_model(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    assert "R: 1 of its 36 numbers" in failing(check(path, provider="cpu"), "non-finite-weights")


# --- Shapes ---


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("W", (1, 4 * H, SIZE + 1), "W W is (1, 12, 5), but LSTM with hidden_size 3 and 1 direction needs (1, 12, 4)"),
        ("W", (4 * H, SIZE), "W W is (12, 4)"),
        ("R", (1, H, 4 * H), "R R is (1, 3, 12), but LSTM with hidden_size 3 and 1 direction needs (1, 12, 3)"),
        ("R", (2, 4 * H, H), "R R is (2, 12, 3)"),
        ("B", (1, 4 * H), "B B is (1, 12), but LSTM with hidden_size 3 and 1 direction needs (1, 24)"),
    ],
)
def test_weights_that_do_not_fit(name: str, shape: tuple[int, ...], text: str, tmp_path: Path):
    report = checked(tmp_path, store(**{name: np.zeros(shape, np.float32)}))
    assert f"rnn: {text}" in failing(report, "weight-shapes")


def test_states_of_another_size(tmp_path: Path):
    node = Node({**inputs_of(), "initial_h": np.zeros((1, 2, H), np.float32)}, {"direction": "bidirectional"})
    report = check(node.save(tmp_path / "m.onnx"), provider="cpu")
    text = failing(report, "weight-shapes")
    assert "initial_h initial_h is (1, batch, 3), but LSTM with hidden_size 3 and 2 directions needs (2, ?, 3)" in text


@pytest.mark.parametrize(("kind", "gates"), [("GRU", 3), ("RNN", 1)])
def test_of_the_others_too(kind: str, gates: int, tmp_path: Path):
    for rows, fits in ((gates * H, True), (gates * H + 1, False)):
        stored = {"W": np.zeros((1, gates * H, SIZE), np.float32), "R": np.zeros((1, rows, H), np.float32)}
        node = helper.make_node(kind, ["X", "W", "R"], ["Y"], "rnn", hidden_size=H)
        graph = graph_of([node], {"X": ("time", "batch", SIZE)}, {"Y": ("time", 1, "batch", H)}, stored)
        report = check(save(graph, tmp_path / "m.onnx"), provider="cpu")
        assert ("weight-shapes" in report.silent) is fits, str(report)
        assert bool(report) is fits


def test_the_quantized_operator_has_its_matrices_turned(tmp_path: Path):
    path = quantized(tmp_path)
    assert "weight-shapes" in check(path, provider="cpu").silent
    model = onnx.load_model(path)
    w = next(tensor for tensor in model.graph.initializer if tensor.name == "W")
    store(W=numpy_helper.to_array(w).swapaxes(1, 2))(model)
    path.write_bytes(model.SerializeToString())
    assert "W W is (1, 12, 4)" in failing(check(path, provider="cpu"), "weight-shapes")
