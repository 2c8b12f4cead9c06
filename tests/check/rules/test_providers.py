"""The rules on where recurrent operators run: what CUDA lacks, and what precision costs on which CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lstm_onnx.check import CheckReport, check
from lstm_onnx.check.rules import precision
from tests.conformance.by_hand import SIZE, H, graph_of, inputs_of
from tests.conformance.nodes import Node, save

from ..models import PLAIN, PROJECTED, export, failing, fake_cuda
from ..violations import CASES, base, nothing, quantized, seven_bits

LINEAR_FIRST = {"linear_before_reset": 1}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runtime.providers", "check.examine", "check.execution"):
        monkeypatch.setattr(f"lstm_onnx.{module}.cuda_unavailable", lambda: "no GPU")


def said(report: CheckReport, rule: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == rule and finding.violated]


def one(folder: Path, kind: str, **values: Any) -> Path:
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * H
    both = 2 if values.get("direction") == "bidirectional" else 1
    stored = {"W": np.ones((both, rows, SIZE), np.float32), "R": np.ones((both, rows, H), np.float32)}
    node = helper.make_node(kind, ["X", "W", "R"], ["Y"], "rnn", hidden_size=H, **values)
    graph = graph_of([node], {"X": ("time", "batch", SIZE)}, {"Y": ("time", both, "batch", H)}, stored)
    return save(graph, folder / "m.onnx")


@pytest.mark.parametrize(
    ("kind", "values", "text"),
    [
        ("LSTM", {"clip": 100.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "the activations sigmoid, relu, tanh"),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.2]}, "activation_alpha"),
        ("GRU", {}, "linear_before_reset 0"),
        ("GRU", {**LINEAR_FIRST, "activations": ["Sigmoid", "Relu"]}, "the activations sigmoid, relu"),
        ("RNN", {"activations": ["Relu"]}, "the activations relu"),
    ],
)
def test_what_cuda_lacks(kind: str, values: dict[str, Any], text: str, tmp_path: Path):
    path = one(tmp_path, kind, **values)
    (message,) = said(check(path, provider="auto"), "variant-on-cuda")
    assert message.startswith(f"{kind} with ")
    assert text in message
    # Who asks for the CPU has nothing to gain from it.
    assert not said(check(path, provider="cpu"), "variant-on-cuda")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("LSTM", {}),
        ("LSTM", {"input_forget": 0}),
        ("LSTM", {"direction": "bidirectional", "activations": ["sigmoid", "Tanh", "tanh"] * 2}),
        ("GRU", LINEAR_FIRST),
        ("GRU", {**LINEAR_FIRST, "direction": "bidirectional", "activations": ["Sigmoid", "Tanh"] * 2}),
        ("RNN", {"activations": ["Tanh"]}),
    ],
)
def test_what_cuda_has(kind: str, values: dict[str, Any], tmp_path: Path):
    report = check(one(tmp_path, kind, **values), provider="auto", strict=True)
    assert report, str(report)
    assert "variant-on-cuda" in report.silent


def test_peepholes_and_int8_are_variants_too(tmp_path: Path):
    peepholes = Node({**inputs_of(), "P": np.ones((1, 3 * H), np.float32)}).save(tmp_path / "m.onnx")
    assert said(check(peepholes, provider="auto"), "variant-on-cuda") == ["LSTM with peepholes does not run on CUDA"]
    (message,) = said(check(quantized(tmp_path), provider="auto"), "variant-on-cuda")
    assert message == "DynamicQuantizeLSTM has a kernel only for the CPU"


@pytest.mark.parametrize(("opset", "told"), [(21, False), (22, True), (23, True)])
def test_a_new_opset_may_not_be_on_cuda(opset: int, told: bool, tmp_path: Path):
    path = export(tmp_path, PLAIN, opset=opset)
    assert bool(said(check(path, provider="auto"), "opset-on-cuda")) is told
    assert not said(check(path, provider="cpu"), "opset-on-cuda")


def test_a_new_opset_without_a_recurrent_operator_is_none(tmp_path: Path):
    node = helper.make_node("Relu", ["X"], ["Y"])
    graph = graph_of([node], {"X": ("time", "batch")}, {"Y": ("time", "batch")}, {})
    report = check(save(graph, tmp_path / "m.onnx", opset=22), provider="auto", strict=True)
    assert report, str(report)


def test_steps_that_the_host_starts_are_told_and_a_fold_has_none(tmp_path: Path):
    report = check(export(tmp_path, PROJECTED), provider="auto", strict=True)
    assert said(report, "loop-on-cuda") == ["Scan runs step by step from the host"]
    assert report, str(report)  # which is not a mistake
    assert "loop-on-cuda" in check(export(tmp_path, PROJECTED, projection="fold"), provider="auto").silent


def test_double_is_refused_on_the_cpu_in_an_lstm_and_not_in_a_scan(tmp_path: Path):
    lstm = check(export(tmp_path, {**PLAIN, "dtype": "float64"}, projection="fold"), provider="cpu")
    assert "opens on the CPU but cannot run" in failing(lstm, "float64-on-cpu")
    assert [finding.rule for finding in lstm.failures] == ["float64-on-cpu"]
    assert check(export(tmp_path, {**PLAIN, "dtype": "float64"}), provider="cpu")
    assert check(export(tmp_path, {**PROJECTED, "dtype": "float64"}), provider="cpu")


def test_double_inside_is_told_by_the_graph_alone(tmp_path: Path):
    """Neither goes in or out in double: the session would be opened, and fail at the first run."""
    path = base(tmp_path, CASES["float64-on-cpu"], nothing)
    model = onnx.load_model(path)
    (lstm,) = model.graph.node
    lstm.input[0], lstm.output[0] = "wide", "wide_y"
    model.graph.node.insert(0, helper.make_node("Cast", ["X"], ["wide"], to=onnx.TensorProto.DOUBLE))
    model.graph.node.append(helper.make_node("Cast", ["wide_y"], ["Y"], to=onnx.TensorProto.FLOAT))
    del model.graph.output[1:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    path.write_bytes(model.SerializeToString())
    report = check(path, provider="cpu")
    assert {finding.rule for finding in report.failures} == {"float64-on-cpu", "runnable"}


# --- int8 ---


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"avx2"}, True),
        ({"avx2", "avx512f", "avx512bw"}, True),
        ({"avx2", "avx_vnni"}, False),
        ({"avx2", "avx512f", "avx512_vnni"}, False),
        ({"sse4_1"}, False),
        (set(), False),  # another kind of CPU, or another system: unknown
    ],
)
def test_int8_saturates_where_there_is_no_vnni(
    flags: set[str], told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    report = check(quantized(tmp_path), provider="cpu")
    assert report, str(report)
    expected = ["DynamicQuantizeLSTM has int8 weights, whose products saturate on this CPU (no VNNI)"]
    assert said(report, "int8-saturation") == expected * told


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx2"}))


@pytest.mark.usefixtures("saturating")
def test_seven_bits_do_not_saturate(tmp_path: Path):
    path = quantized(tmp_path)
    model = onnx.load_model(path)
    seven_bits(model)
    path.write_bytes(model.SerializeToString())
    assert "int8-saturation" in check(path, provider="cpu").silent


@pytest.mark.usefixtures("saturating")
def test_other_products_of_int8(tmp_path: Path):
    """A MatMul in integers saturates as well; weights that are only stored in int8 do not."""
    stored = {"q": np.full((4, 3), 127, np.int8), "scale": np.float32(0.1).reshape(())}
    integer = helper.make_node("MatMulInteger", ["x", "q"], ["y"])
    kind = {"x": onnx.TensorProto.UINT8, "y": onnx.TensorProto.INT32}
    graph = graph_of([integer], {"x": ("n", 4)}, {"y": ("n", 3)}, {"q": stored["q"]}, kind)
    report = check(save(graph, tmp_path / "m.onnx"), provider="cpu")
    assert len(said(report, "int8-saturation")) == 1, str(report)
    nodes = [helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = graph_of(nodes, {"x": ("n", 4)}, {"y": ("n", 3)}, stored)
    assert "int8-saturation" in check(save(graph, tmp_path / "m.onnx"), provider="cpu").silent


@pytest.mark.usefixtures("saturating")
def test_int8_on_a_gpu_is_another_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_cuda(monkeypatch)
    assert "int8-saturation" in check(quantized(tmp_path), provider="cuda").silent


@pytest.mark.usefixtures("saturating")
def test_int8_weights_in_another_file_are_taken_for_full(tmp_path: Path):
    path = quantized(tmp_path)
    model = onnx.load_model(path)
    seven_bits(model)
    onnx.save_model(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    assert len(said(check(path, provider="cpu"), "int8-saturation")) == 1
