"""Quiet models are compared with their weights amplified, in the file and in PyTorch alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import LSTMSpec
from lstm_onnx.exporter.sources.torch_lstm import seeded_state, spec_of, state_of
from lstm_onnx.parity.amplify import amplified_graph, amplified_state, layer_gains
from lstm_onnx.parity.lstm.verification import LSTMVerification

from .files import edit_file, lstm, verified
from .mutants.bases import BASES, base

pytestmark = pytest.mark.sweep(27)


def _verification(module: nn.LSTM, path: Path) -> LSTMVerification:
    return LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)


def _quiet(scale: float = 1e-3, **arguments: object) -> tuple[LSTMSpec, dict[str, np.ndarray]]:
    module = lstm(scale=scale, **arguments)
    spec = spec_of(module)
    return spec, state_of(module, spec)


def test_a_quiet_model_that_is_wrong_fails_by_far(tmp_path: Path) -> None:
    module, path = lstm(num_layers=2, scale=1e-3), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    right = verified(module, path, "all")
    assert right, str(right)

    def swap(model: onnx.ModelProto) -> None:
        tensor = next(item for item in model.graph.initializer if item.name == "l1/W")
        i, o, f, c = np.split(numpy_helper.to_array(tensor), 4, axis=1)
        tensor.CopyFrom(numpy_helper.from_array(np.concatenate([o, i, f, c], axis=1), tensor.name))

    edit_file(path, swap)
    report = verified(module, path)
    assert not report
    ratios = {case.label: max(tensor.ratio for tensor in case.tensors) for case in report.cases}
    loud = {label: ratio for label, ratio in ratios.items() if label.startswith("weights amplified")}
    assert len(loud) == 3
    assert min(loud.values()) > 1000 * max(ratio for label, ratio in ratios.items() if label not in loud)


@pytest.mark.parametrize("scale", [1e-3, 0.05])
@pytest.mark.parametrize("name", BASES)
def test_a_right_file_stays_right_when_it_is_made_loud(name: str, scale: float) -> None:
    made = base(name, scale)
    done = LSTMVerification(made.loaded(), made.module)
    results = list(done.results())
    assert all(result.passed for result in results)
    loud = [result for result in results if result.label.startswith("weights amplified")]
    assert len(loud) == (4 if "lengths" in done.model.inputs else 3)
    assert done.planned == len(results)
    assert not any(case.label.startswith("weights amplified") for case in done.expected)
    subject = done.amplified
    assert subject is not None
    moved = subject.expected[1].calls[0].reference["output"]
    assert float(np.sqrt(np.mean(moved**2))) > 0.03  # of a quiet model's h, a thousandth of that


def test_ordinary_models_are_left_as_they_are(tmp_path: Path) -> None:
    module = lstm(num_layers=2)
    lstm_onnx.export(module, tmp_path / "m.onnx")
    done = _verification(module, tmp_path / "m.onnx")
    assert done.amplified_models is None
    assert done.amplified is None
    assert not any("amplified" in case.label for case in (*done.cases, *done.amplified_cases))


def test_half_precision_is_made_loud_sooner() -> None:
    state = seeded_state(LSTMSpec(5, 8), 0)
    assert layer_gains(LSTMSpec(5, 8), state) is None
    halves = {name: array.astype(np.float16) for name, array in state.items()}
    assert layer_gains(LSTMSpec(5, 8, dtype="float16"), halves) is not None


def test_gains_are_powers_of_two_that_never_shrink() -> None:
    spec, state = _quiet(num_layers=2, proj_size=3)
    state["bias_ih_l1"][:] = state["bias_hh_l1"][:] = 100.0
    state["weight_hh_l0"][:] = 0.0
    gains = layer_gains(spec, state)
    assert gains is not None
    factors = np.array([list(gain.values()) for gain in gains])
    assert (np.log2(factors) % 1 == 0).all()
    assert factors.min() == 1.0
    assert gains[1]["bias"] == 1.0
    assert gains[0]["weight_hh"] == 1.0
    assert gains[0]["weight_ih"] > 100
    louder = amplified_state(state, gains)
    assert louder.keys() == state.keys()
    for name, array in louder.items():
        factor = next(value for kind, value in gains[int(name[-1])].items() if name.startswith(kind))
        np.testing.assert_array_equal(array, state[name] * np.float32(factor))


def _without_bias(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input[3] = ""


def _computed_weights(model: onnx.ModelProto) -> None:
    """R comes from a node, as in files of others."""
    model.graph.node.insert(0, helper.make_node("Abs", ["l0/R"], ["abs"]))
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input[2] = "abs"


def _split_layer(model: onnx.ModelProto) -> None:
    """One more recurrent layer than the module has."""
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name, copy.output[:] = "again", ["unused", "", ""]
    model.graph.node.append(copy)


@pytest.mark.parametrize("change", [_without_bias, _computed_weights, _split_layer])
def test_where_the_weights_are_not_found_the_inputs_are_made_loud(change: object, tmp_path: Path) -> None:
    module, path = lstm(scale=1e-3), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    edit_file(path, change)
    done = _verification(module, path)
    assert done.amplified_models is None
    assert done.amplified_cases == []
    assert [case.label for case in done.cases if case.label.endswith("amplified")]


def test_a_fold_that_has_lost_its_digits_is_not_made_loud() -> None:
    """In float16 R W_hr of weights of a hundredth is below the least normal number."""
    spec, state = _quiet(0.01, proj_size=3, dtype=torch.float16)
    gains = layer_gains(spec, state)
    assert gains is not None
    made = base("fold both ways", 0.01)
    half = onnx.load(made.path)
    for tensor in half.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    spec = LSTMSpec(5, 8, bidirectional=True, proj_size=3, dtype="float16")
    assert amplified_graph(half, "", spec, gains) is None
    assert amplified_graph(made.graph, "", spec, gains) is not None
