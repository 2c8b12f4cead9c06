"""Files with a real fault: where they first differ from a bare nn.LSTM, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import Model, ParityReport
from lstm_onnx.parity.diagnosis import search as causes
from lstm_onnx.parity.diagnosis.fault_models import (
    changed_parameters,
    fault_models,
    parameters_of,
    rounded,
    run_with,
)
from lstm_onnx.parity.lstm.reference import run_torch
from lstm_onnx.parity.lstm.verification import LSTMVerification
from lstm_onnx.parity.verification import make_report
from lstm_onnx.runtime.providers import Placement

from ..files import edit_file, lstm, mutate_file, verified

pytestmark = pytest.mark.sweep(18)

STACKED = {"num_layers": 2, "bidirectional": True, "batch_first": True, "lengths": True}
SCAN = {"num_layers": 2, "bidirectional": True, "proj_size": 3, "lengths": True}
FOLD = {"num_layers": 2, "proj_size": 3, "projection": "fold"}


def _exported(path: Path, lengths: bool = False, projection: str = "scan", **arguments: Any) -> nn.LSTM:
    module = lstm(**arguments)
    lstm_onnx.export(module, path, lengths=lengths, projection=projection)
    return module


def _wrong(folder: Path, names: list[tuple[str, int]], **arguments: Any) -> ParityReport:
    """The report on a file with these mistakes, each in the layer of that number."""
    path = folder / "m.onnx"
    module = _exported(path, **arguments)
    for name, site in names:
        mutate_file(path, name, site)
    report = verified(module, path)
    assert not report
    return report


@pytest.mark.parametrize("arguments", [{}, STACKED, SCAN, FOLD], ids=["plain", "stacked", "scan", "fold"])
def test_a_right_file_has_neither_place_nor_cause(arguments: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _exported(path, **arguments)
    verification = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    report = make_report(verification, verification.results(), mutants="none")
    assert report
    assert verification.diagnosis() == (None, ())
    assert report.location is None
    assert report.causes == ()


@pytest.mark.sweep(27)
@pytest.mark.parametrize(
    ("arguments", "name", "site", "cause", "place"),
    [
        # layer, direction, gate
        ({}, "gates i and o exchanged", 0, "gate order: o,f,g,i", (0, None, None)),
        ({}, "gates i and c exchanged", 0, "gate order: g,f,i,o", (0, None, "i or g")),
        ({}, "gates o and f exchanged", 0, "gate order: i,o,g,f", (0, None, "f and o")),
        ({}, "R transposed", 0, "R transposed", (0, None, None)),
        ({}, "input bias dropped", 0, "missing bias: bias_ih", (0, None, None)),
        ({}, "both biases dropped", 0, "missing bias: both", (0, None, None)),
        ({}, "bias added twice", 0, "bias twice", (0, None, None)),
        ({}, "run backwards", 0, "direction: time runs backwards", (0, None, None)),
        ({}, "output reversed in time", 0, "direction: the output is reversed in time", (None, None, None)),
        ({}, "initial h ignored", 0, "states ignored: h0", (0, None, None)),
        ({}, "initial c ignored", 0, "states ignored: c0", (0, None, None)),
        ({}, "initial h and c exchanged", 0, "state order: h0 and c0 exchanged", (0, None, None)),
        ({}, "final h and c exchanged", 0, "state order: hn and cn exchanged", (0, None, None)),
        (STACKED, "gates f and c exchanged", 1, "gate order of layer 1: i,g,f,o", (1, "forward", None)),
        (STACKED, "recurrent bias dropped", 1, "missing bias of layer 1: bias_hh", (1, "forward", None)),
        (STACKED, "directions exchanged", 1, "direction of layer 1: the two exchanged", (1, "forward", None)),
        (STACKED, "initial h ignored", 1, "states ignored of layer 1: h0", (1, "forward", None)),
        (STACKED, "lengths ignored", 0, "lengths ignored in layer 0", (0, "forward", None)),
        (STACKED, "lengths one step off", 1, "lengths one too small in layer 1", (1, "forward", None)),
        (SCAN, "gates i and f exchanged", 1, "gate order of layer 1: f,i,g,o", (1, "forward", None)),
        (SCAN, "gates i and c exchanged", 0, "gate order of layer 0: g,f,i,o", (0, "forward", "i or g")),
        (SCAN, "initial c of two layers exchanged", 0, "state order: c0, ", (0, "forward", None)),
        (SCAN, "final h of two layers exchanged", 1, "state order: hn, 2 and 3 exchanged", (1, "forward", None)),
        (SCAN, "lengths one step off", 0, "lengths one too large", (0, "forward", None)),
        (FOLD, "gates o and f exchanged", 1, "gate order of layer 1: i,o,g,f", (1, None, "f")),
        (FOLD, "initial c ignored", 1, "states ignored of layer 1: c0", (1, None, None)),
    ],
)
def test_where_and_why(
    arguments: dict[str, Any], name: str, site: int, cause: str, place: tuple[Any, ...], tmp_path: Path
) -> None:
    report = _wrong(tmp_path, [(name, site)], **arguments)
    (found,) = report.causes
    assert found.name.startswith(cause)
    if not cause.endswith(" "):
        assert found.name == cause
    assert "gives the file's numbers in" in found.evidence
    location = report.location
    assert location is not None
    told = (location.layer, location.direction, location.gate)
    assert told[:2] == place[:2]
    assert place[2] is None or told[2] == place[2]
    assert location.step is not None
    assert location.row is not None
    assert location.feature is not None
    assert found.name in str(report)
    assert report.to_dict()["causes"][0]["name"] == found.name


def _changed_in_reverse(path: Path) -> None:
    """Rows of gates i and f exchanged in layer 0's reverse direction alone."""

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name in ("l0/W", "l0/R", "l0/B"):
                array = numpy_helper.to_array(tensor).copy()
                for start in range(0, array.shape[1], 32):
                    i, f = slice(start, start + 8), slice(start + 16, start + 24)
                    array[1, i], array[1, f] = array[1, f].copy(), array[1, i].copy()
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    edit_file(path, change)


def test_a_mistake_in_one_direction_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _exported(path, **STACKED)
    _changed_in_reverse(path)
    report = verified(module, path)
    assert [cause.name for cause in report.causes] == ["gate order of layer 0, reverse: f,i,g,o"]
    assert report.location is not None
    assert (report.location.layer, report.location.direction) == (0, "reverse")


@pytest.mark.parametrize("axis", ["batch", "time"])
@pytest.mark.parametrize("arguments", [{}, SCAN])
def test_a_baked_size_is_named(axis: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    report = _wrong(tmp_path, [(f"{axis} baked in", 0)], **arguments)
    assert [cause.name for cause in report.causes] == [f"baked shape: {axis}"]
    assert f"it runs if {axis} is {3 if axis == 'batch' else 7}" in report.causes[0].evidence


def test_streams_that_are_mispaired(tmp_path: Path) -> None:
    report = _wrong(tmp_path, [("streams' states mispaired", 0)])
    assert [cause.name for cause in report.causes] == ["state order: streams"]
    assert report.location is not None
    assert "every chunking" in report.location.case


@pytest.mark.parametrize(
    ("arguments", "names", "causes_found"),
    [
        ({}, ["gates i and o exchanged", "initial c ignored"], ["gate order: o,f,g,i", "states ignored: c0"]),
        (
            {},
            ["both biases dropped", "initial h and c exchanged"],
            ["missing bias: both", "state order: h0 and c0 exchanged"],
        ),
        ({"lengths": True}, ["R transposed", "lengths ignored"], ["R transposed", "lengths ignored"]),
        ({}, ["gates o and f exchanged", "batch baked in"], ["baked shape: batch", "gate order: i,o,g,f"]),
    ],
)
def test_of_two_mistakes_both_are_found(
    arguments: dict[str, Any], names: list[str], causes_found: list[str], tmp_path: Path
) -> None:
    report = _wrong(tmp_path, [(name, 0) for name in names], **arguments)
    assert [cause.name for cause in report.causes] == causes_found


@pytest.mark.parametrize("name", ["W too large", "R too large", "other activations"])
def test_what_is_in_no_catalogue_has_a_place_and_no_cause(name: str, tmp_path: Path) -> None:
    report = _wrong(tmp_path, [(name, 1)], num_layers=2)
    assert report.causes == ()
    assert report.location is not None
    assert report.location.layer == 1


def test_a_known_mistake_beside_an_unknown_one_is_not_guessed(tmp_path: Path) -> None:
    """With activations that are wrong everywhere nothing explains a single case."""
    report = _wrong(tmp_path, [("initial c ignored", 0), ("other activations", 0)])
    assert report.causes == ()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_that_went_through_a_narrow_type(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _exported(path)

    def narrow(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32:
                small = torch.from_numpy(array.copy()).to(getattr(torch, kind)).float().numpy()
                tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))

    edit_file(path, narrow)
    report = verified(module, path)
    assert not report
    assert [cause.name for cause in report.causes] == [f"rounded weights: {kind}"]


def test_other_weights_have_no_cause_but_a_note(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lstm_onnx.export(lstm(seed=1), path)
    report = verified(lstm(seed=2), path)
    assert report.causes == ()
    assert any("other weights" in note for note in report.notes)


def test_a_quiet_file_is_told_by_its_loud_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _exported(path, num_layers=2, scale=1e-4)
    mutate_file(path, "gates f and c exchanged", 1)
    report = verified(module, path)
    assert [cause.name for cause in report.causes] == ["gate order of layer 1: i,g,f,o"]
    assert report.location is not None
    assert report.location.layer == 1


def test_steps_of_the_first_difference_are_where_it_begins(tmp_path: Path) -> None:
    """Lengths that are ignored are seen from the first padded step on."""
    path = tmp_path / "m.onnx"
    module = _exported(path, lengths=True)
    mutate_file(path, "lengths ignored")
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    verification = LSTMVerification(model, module)
    report = make_report(verification, verification.results(), mutants="none")
    case = next(case for case in verification.cases if case.label == report.location.case)
    assert report.location.step == int(case.feeds["lengths"].min())


@pytest.fixture
def quantized(tmp_path: Path) -> tuple[nn.LSTM, Path]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    module, path = lstm(hidden_size=32), tmp_path / "m.onnx"
    lstm_onnx.export(module, path)
    out = tmp_path / "int8.onnx"
    quantize_dynamic(path, out, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
    assert any(node.op_type == "DynamicQuantizeLSTM" for node in onnx.load(out).graph.node)
    return module, out


def test_an_int8_file_is_told_apart_from_one_that_saturates(
    quantized: tuple[nn.LSTM, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether this CPU saturates is its own affair; a full sum that is right makes the error one of saturation."""
    module, path = quantized
    report = verified(module, path)
    assert not report
    (found,) = [cause for cause in report.causes if "int8" in cause.name]
    assert "DynamicQuantizeLSTM is off by" in found.evidence

    def right(model: Model, _: object, feeds: Any) -> dict[str, np.ndarray]:
        x, states = torch.from_numpy(feeds["input"]), (torch.from_numpy(feeds["h0"]), torch.from_numpy(feeds["c0"]))
        with torch.no_grad():
            output, (hn, cn) = module(x, states)
        return {"output": output.numpy(), "hn": hn.numpy(), "cn": cn.numpy()}

    monkeypatch.setattr(causes, "run_precisely", right)
    saturated = verified(module, path)
    assert [cause.name for cause in saturated.causes if "int8" in cause.name] == ["saturated int8"]


def test_a_file_that_does_not_run_precisely_is_not_said_to_saturate(
    quantized: tuple[nn.LSTM, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, path = quantized
    monkeypatch.setattr(causes, "run_precisely", lambda *_: {})
    assert [cause.name for cause in verified(module, path).causes] == ["int8 weights"]


def test_int8_products_are_summed_in_full(quantized: tuple[nn.LSTM, Path]) -> None:
    module, path = quantized
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    x = np.random.default_rng(0).standard_normal((4, 2, 5)).astype(np.float32)
    feeds = model.completed({"input": x})
    outputs = causes.run_precisely(model, onnx.load(path), feeds)
    with torch.no_grad():
        right = module(torch.from_numpy(x))[0].numpy()
    assert set(outputs) == {"output", "hn", "cn"}
    assert np.abs(outputs["output"] - right).max() < 0.05
    broken = onnx.load(path)
    del broken.graph.node[:]
    assert causes.run_precisely(model, broken, feeds) == {}


class _OnCuda:
    """What a session on CUDA with TF32 would give, computed with weights and inputs rounded to 10 bits."""

    def __init__(self, model: Model, module: nn.LSTM, *, tf32: bool) -> None:
        self.model = model
        model.provider = "cuda"
        narrow = lstm()
        with torch.no_grad():
            for own, parameter in zip(narrow.parameters(), module.parameters(), strict=True):
                array = parameter.detach().double().numpy()
                own.copy_(torch.from_numpy(rounded(array, 10) if tf32 else array))
        self.narrow, self.bits = narrow, 10 if tf32 else 23
        model.run = self.run

    def run(self, feeds: Any) -> dict[str, np.ndarray]:
        arrays = self.model.completed({name: np.asarray(array) for name, array in feeds.items()})
        states = (torch.from_numpy(arrays["h0"]), torch.from_numpy(arrays["c0"]))
        x = rounded(arrays["input"], self.bits) if self.bits < 23 else arrays["input"]
        with torch.no_grad():
            output, (hn, cn) = self.narrow(torch.from_numpy(x), states)
        return {"output": output.numpy(), "hn": hn.numpy(), "cn": cn.numpy()}


def test_tf32_on_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    module = _exported(path)
    monkeypatch.setattr(causes, "placements", lambda _: [])
    for tf32, names in ((True, {"TF32"}), (False, set())):
        model = lstm_onnx.load(path, provider="cpu", threads=1)
        _OnCuda(model, module, tf32=tf32)
        verification = LSTMVerification(model, module)
        verification.cases = [case for case in verification.cases if case.kind == "whole"]
        report = make_report(verification, verification.results(), mutants="none")
        assert bool(report) is not tf32
        assert {cause.name for cause in report.causes} == names


def test_an_operator_that_left_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    module = lstm()
    lstm_onnx.export(module, path, opset=22)
    placed = [Placement("l0/LSTM", "LSTM", "CPUExecutionProvider")]
    monkeypatch.setattr(causes, "placements", lambda _: placed)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    _OnCuda(model, module, tf32=True)
    verification = LSTMVerification(model, module)
    verification.cases = verification.cases[:3]
    report = make_report(verification, verification.results(), mutants="none")
    assert {cause.name for cause in report.causes} >= {"opset fallback"}


def test_what_was_tried_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _exported(path)
    verification = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), module)
    list(verification.results())
    own, done = verification.models.float64, verification.compared[4]
    right, feeds = parameters_of(own), done.expected.calls[0].feeds
    for one in fault_models(verification.spec, 0, None):
        with changed_parameters(own, right, one.weights(right)):
            run_with((one,), run_torch)(own, feeds)
    for name, array in parameters_of(own).items():
        np.testing.assert_array_equal(array, verification.state[name].astype(np.float64))
    for name, array in run_with((), run_torch)(own, feeds).items():
        np.testing.assert_array_equal(array, done.expected.calls[0].reference[name])
