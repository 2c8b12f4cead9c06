"""Int8 and float16 files against the float32 file that they were made of, of any tool, without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError, ModelError, ParityReport
from lstm_onnx.parity.converted.exact import GRAPH, STORED, Stored
from lstm_onnx.parity.golden_file import read as read_golden
from lstm_onnx.testing import ParityError, assert_parity
from tests.parity.converted.files import (
    a_zero_point,
    all_numbers,
    changed,
    crossed_states,
    next_float,
    number,
    reversed_direction,
)
from tests.quantization.operators import Case, saved

pytestmark = pytest.mark.sweep(18)

OPTIONS: dict[str, Any] = {"provider": "cpu", "threads": 1, "mutants": "none"}
KERNELS = ("MatMulInteger", "MatMulNBits", "DynamicQuantizeLSTM")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of another tool and its int8 forms: axes "n" and "s", lengths computed from int64, a reverse direction."""
    folder = tmp_path_factory.mktemp("files")
    model = Case("LSTM", 2, lengths=True).model()
    graph = model.graph
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = {"time": "s", "batch": "n"}[dim.dim_param]
    graph.node.insert(0, helper.make_node("Cast", ["seq_len"], ["lengths"], name="cast", to=TensorProto.INT32))
    for value in graph.input:
        if value.name == "lengths":
            value.CopyFrom(helper.make_tensor_value_info("seq_len", TensorProto.INT64, ["n"]))
    saved(folder / "m.onnx", model)
    for kernel in KERNELS:
        lstm_onnx.quantize(folder / "m.onnx", folder / f"{kernel}.onnx", kernel=kernel)
    lstm_onnx.export(nn.LSTM(20, 24), folder / "own.onnx")
    lstm_onnx.export(nn.LSTM(20, 24), folder / "other.onnx")
    return folder


def verified(folder: Path, file: Path | str = "MatMulInteger.onnx", **options: Any) -> ParityReport:
    return lstm_onnx.verify(folder / "m.onnx", folder / file, **{**OPTIONS, **options})


def failed(report: ParityReport) -> set[str]:
    return {case.label for case in report.cases if not case.passed}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_right_file_passes_and_its_mutants_do_not(kernel: str, folder: Path) -> None:
    report = verified(folder, f"{kernel}.onnx", mutants="quick")
    assert report, str(report)
    assert len(report.mutants) >= 8
    assert {mutant.outcome for mutant in report.mutants} == {"rejected"}
    kinds = {case.kind for case in report.cases}
    assert kinds == ({"stored", "layers"} if kernel == "DynamicQuantizeLSTM" else {"stored", "layers", "rows"})
    assert {(one.name, one.largest) for one in report.ranges} >= {("s", 12), ("n", 3)}
    assert [drift.output for drift in report.drift] == ["y", "hn", "cn"]
    assert all(1e-4 < drift.relative < 0.05 for drift in report.drift)
    assert report.drift[0].steps == 12


def test_the_report_says_what_was_compared(folder: Path) -> None:
    report = verified(folder)
    text = str(report)
    name = folder / "MatMulInteger.onnx"
    assert text.startswith(f"{name}: the int8 form of the float32 file, {folder / 'm.onnx'}")
    assert "numbers must be equal" in text
    assert report.to_dict()["reference"] == "float32"
    from lstm_onnx.parity.reports.page import page

    assert "<h1>Comparison with the float32 file</h1>" in page([report])
    assert "PyTorch" not in text + page([report])


WRONG: dict[str, tuple[Callable[[Stored], None], str]] = {
    "one byte of R": (number("R/1/int8", lambda value: value ^ 1), STORED),
    "one scale": (number("W/0/scale", next_float), STORED),
    "a zero point": (a_zero_point, STORED),
    "weights exchanged": (
        all_numbers("R/0/int8", lambda array: np.roll(array, 1, axis=1)),
        "int8 layers, random inputs",
    ),
    "states crossed": (crossed_states, GRAPH),
    "a direction flipped": (reversed_direction, GRAPH),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_fails_by_name(name: str, folder: Path, tmp_path: Path) -> None:
    change, label = WRONG[name]
    report = verified(folder, changed(folder / "MatMulInteger.onnx", tmp_path / "wrong.onnx", change))
    assert not report
    assert label in failed(report)
    assert "NOT the int8 form of the float32 file" in str(report)


def test_the_int8_form_of_other_weights_fails(folder: Path, tmp_path: Path) -> None:
    lstm_onnx.quantize(folder / "own.onnx", tmp_path / "q.onnx")
    assert lstm_onnx.verify(folder / "own.onnx", tmp_path / "q.onnx", **OPTIONS)
    report = lstm_onnx.verify(folder / "other.onnx", tmp_path / "q.onnx", **OPTIONS)
    assert STORED in failed(report)
    assert any("its digest differs" in note for note in report.notes)


def test_a_file_of_states_is_compared_step_by_step_as_well(folder: Path, tmp_path: Path) -> None:
    lstm_onnx.quantize(folder / "own.onnx", tmp_path / "q.onnx")
    report = lstm_onnx.verify(folder / "own.onnx", tmp_path / "q.onnx", **OPTIONS)
    assert {"int8 layers, alone", "int8 layers, step by step"} <= {case.label for case in report.cases}


def test_float16_is_compared_likewise(tmp_path: Path) -> None:
    module = nn.LSTM(20, 24)
    for precision in ("float32", "float16"):
        lstm_onnx.export(module, tmp_path / f"{precision}.onnx", precision=precision)
    report = lstm_onnx.verify(tmp_path / "float32.onnx", tmp_path / "float16.onnx", **OPTIONS)
    assert report, str(report)
    assert "the float16 form of the float32 file" in str(report)
    assert any(case.label.startswith("rounded weights, ") for case in report.cases)
    half = number("l0/W/float16", lambda value: np.nextafter(value, np.float16(9)))
    wrong = changed(tmp_path / "float16.onnx", tmp_path / "wrong.onnx", half)
    assert STORED in failed(lstm_onnx.verify(tmp_path / "float32.onnx", wrong, **OPTIONS))


def test_the_drift_has_a_limit_and_data_count(folder: Path) -> None:
    feeds = {**Case("LSTM", 2).feeds(30, 1), "seq_len": np.array([30])}
    report = verified(folder, data=[feeds], max_drift=0.2)
    assert report, str(report)
    assert {drift.inputs for drift in report.drift} == {"drawn", "data"}
    report = verified(folder, max_drift=1e-5)
    assert failed(report) == {"the drift from float32"}
    assert "the int8 form of the float32 file, and DRIFTS FARTHER than allowed" in str(report)


def test_a_golden_file_holds_the_float32_file(folder: Path, tmp_path: Path) -> None:
    assert verified(folder, golden=tmp_path / "g.npz")
    assert read_golden(tmp_path / "g.npz").reference == "float32"
    report = assert_parity(folder / "MatMulInteger.onnx", golden=tmp_path / "g.npz", mutants="quick")
    assert report.reference == "float32"
    assert report.mutants
    assert "PyTorch" not in str(report)
    wrong = changed(folder / "MatMulInteger.onnx", tmp_path / "wrong.onnx", WRONG["one scale"][0])
    with pytest.raises(ParityError, match="numbers differ from the source's"):
        assert_parity(wrong, golden=tmp_path / "g.npz")
    with pytest.raises(ParityError, match="numbers differ from the source's"):
        assert_parity(folder / "m.onnx", wrong, provider="cpu", mutants="none")


def test_inputs_that_are_drawn_in_vain(folder: Path, tmp_path: Path) -> None:
    """A file that runs for a batch of 2 alone: --data says so."""
    model = onnx.load(folder / "m.onnx")
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [-1, 2, 2, 20])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Reshape", ["y", "shape"], ["fixed"], name="fixed"))
    model.graph.output[0].name = "fixed"
    path = saved(tmp_path / "m.onnx", model)
    feeds = {**Case("LSTM", 2).feeds(5, 2), "seq_len": np.array([5, 2])}
    lstm_onnx.quantize(path, tmp_path / "q.onnx", inputs=feeds)
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", data=[feeds], **OPTIONS)
    assert report, str(report)
    assert any(note.startswith("the float32 file fails on random inputs") for note in report.notes)
    assert "int8 layers, data 0" in {case.label for case in report.cases}
    with pytest.raises(ModelError, match="does not run on random inputs"):
        lstm_onnx.verify(path, tmp_path / "q.onnx", **OPTIONS)


def test_a_scale_that_shows_on_no_input_is_found_among_the_numbers(tmp_path: Path) -> None:
    """All output gates are shut: h is 0, and what R multiplies it by makes no difference."""
    model = Case("LSTM", states=False).model()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "B")
    numbers = numpy_helper.to_array(bias).copy()
    numbers[:, 20:40] = -300
    bias.CopyFrom(numpy_helper.from_array(numbers, "B"))
    path = saved(tmp_path / "m.onnx", model)
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", **{**OPTIONS, "mutants": "all"})
    assert not [mutant.name for mutant in report.mutants if mutant.outcome == "survived" and "R/" in mutant.name]
    (doubled,) = (mutant for mutant in report.mutants if mutant.name == "one scale doubled (R/scale)")
    assert (doubled.outcome, doubled.case) == ("rejected", STORED)


def test_the_direction_of_a_single_step_is_proven_equivalent(tmp_path: Path) -> None:
    model = Case("LSTM").model()
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 1 if dim.dim_param == "time" else 2
    path = saved(tmp_path / "m.onnx", model)
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", **{**OPTIONS, "mutants": "quick"})
    assert report, str(report)
    (reverse,) = (mutant for mutant in report.mutants if mutant.name.startswith("a direction reversed"))
    assert (reverse.outcome, reverse.reason) == ("equivalent", "its sequences have one step in any call")


def in_scans() -> onnx.ModelProto:
    """A GRU on one step; a Scan that carries nothing from step to step, and one that adds the steps up."""
    model = Case("GRU", inputs=40, states=False).model()
    graph = model.graph
    (layer,) = graph.node
    layer.input[0] = "one"
    layer.output[:] = ["", "hn"]
    rows, value, node = ["batch", 40], helper.make_tensor_value_info, helper.make_node

    def scan(name: str, start: str, x: str, steps: list[onnx.NodeProto], shape: list[str | int]) -> onnx.NodeProto:
        inputs, outputs = [("s", shape), ("row", rows)], [("s_next", shape), ("each", rows)]
        ends = ([value(end, TensorProto.FLOAT, dims) for end, dims in part] for part in (inputs, outputs))
        body = helper.make_graph(steps, name, *ends)
        return node("Scan", [start, x], [f"{name}_last", name], name=name, num_scan_inputs=1, body=body)

    alone = [node("MatMul", ["row", "matrix"], ["each"], name="product"), node("Identity", ["s"], ["s_next"])]
    total = [node("Add", ["s", "row"], ["s_next"]), node("Identity", ["s_next"], ["each"])]
    nodes = [
        scan("mapped", "start", "x", alone, [1]),
        node("Gather", ["mapped", "zero"], ["first"], name="first"),
        scan("y", "first", "mapped", total, rows),
        node("Unsqueeze", ["first", "axes"], ["one"], name="one"),
        layer,
    ]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.append(value("y", TensorProto.FLOAT, ["time", *rows]))
    graph.output.append(value("hn", TensorProto.FLOAT, [1, "batch", 20]))
    matrix = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32) / 6
    constants = {"matrix": matrix, "start": np.zeros(1, np.float32), "zero": np.array(0), "axes": np.array([0])}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def test_directions_of_single_steps_and_of_independent_ones_are_proven_equivalent(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", in_scans())
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", **{**OPTIONS, "mutants": "all"})
    assert report, str(report)
    found = {one.name: (one.outcome, one.reason) for one in report.mutants if one.name.startswith("a direction")}
    assert found == {
        "a direction reversed (layer/forward/Scan)": ("equivalent", "it is called on one step at a time"),
        "a direction reversed (mapped)": ("equivalent", "its steps do not depend on each other"),
        "a direction reversed (y)": ("rejected", ""),
    }


@pytest.mark.parametrize(("inputs", "start"), [(1, "zeros"), (24, "zeros"), (24, "same"), (24, "apart")])
def test_mistakes_that_change_nothing_are_none(inputs: int, start: str, tmp_path: Path) -> None:
    """A weight of one input; and as h and c, one value for each direction, as tf2onnx writes zeros."""
    model = Case("LSTM", 2, inputs=inputs).model()
    graph = model.graph
    del graph.input[1:]
    h, c = {"zeros": (0.0, 0.0), "same": (0.5, 0.5), "apart": (0.5, 0.25)}[start]
    for name, value in (("h0", h), ("c0", c)):
        graph.initializer.append(numpy_helper.from_array(np.full((1, 2, 20), value, np.float32), f"{name}_half"))
        graph.node.insert(0, helper.make_node("Concat", [f"{name}_half"] * 2, [name], axis=0))
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "batch":
                dim.dim_value = 2
    path = saved(tmp_path / "m.onnx", model)
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", **{**OPTIONS, "mutants": "quick"})
    assert report, str(report)
    made = {mutant.name.partition(" (")[0] for mutant in report.mutants}
    assert "a weight's inputs shifted by one" in made  # R's
    assert ("initial h and c exchanged" in made) == (start == "apart")


def test_what_cannot_be_compared_is_an_error(folder: Path) -> None:
    int8 = folder / "MatMulInteger.onnx"
    with pytest.raises(ConfigError, match=r"m\.onnx: its metadata do not say that it is int8 or float16"):
        verified(folder, "m.onnx")
    with pytest.raises(ConfigError, match=r"MatMulInteger\.onnx is int8: exchange the two"):
        lstm_onnx.verify(int8, folder / "m.onnx", **OPTIONS)
    with pytest.raises(ModelError, match="is int8 itself; give the float32 file"):
        lstm_onnx.verify(int8, int8, **OPTIONS)
    with pytest.raises(ConfigError, match="which cannot be exported"):
        lstm_onnx.verify(folder / "m.onnx", **OPTIONS)
    with pytest.raises(ConfigError, match="give data= instead of example_inputs"):
        verified(folder, example_inputs=np.zeros(3))


def test_numbers_between_two_integers_must_be_rounded_alike(tmp_path: Path) -> None:
    """A file that rounds halves away from zero gives the same bits for nearly all numbers, and is not the form."""
    path = saved(tmp_path / "m.onnx", Case("GRU").model())
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    node = next(node for node in model.graph.node if node.name.endswith("input_product/uint8"))
    steps = [("Sign", [node.input[0]]), ("Abs", [node.input[0]]), ("Add", ["Abs", "half"]), ("Floor", ["Add"])]
    steps.append(("Mul", ["Floor", "Sign"]))
    at = list(model.graph.node).index(node)
    for op_type, inputs in reversed(steps):
        model.graph.node.insert(at, helper.make_node(op_type, inputs, [op_type], name=op_type))
    node.input[0] = "Mul"
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    onnx.save(model, tmp_path / "q.onnx")
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", **OPTIONS)
    assert [case.label for case in report.cases if not case.passed] == [STORED, GRAPH]


def test_inputs_of_which_only_positive_ones_give_numbers(tmp_path: Path) -> None:
    model = Case("GRU", inputs=32, states=False).model()
    model.graph.node[0].input[0] = "root"
    model.graph.node.insert(0, helper.make_node("Sqrt", ["x"], ["root"], name="root"))
    path = saved(tmp_path / "m.onnx", model)
    lstm_onnx.quantize(path, tmp_path / "q.onnx")
    report = lstm_onnx.verify(path, tmp_path / "q.onnx", **{**OPTIONS, "mutants": "quick"})
    assert report, str(report)
    assert {tensor.output for case in report.cases for tensor in case.tensors} >= {"layer"}
    assert {mutant.outcome for mutant in report.mutants} == {"rejected"}
