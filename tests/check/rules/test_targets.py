"""Rules on other engines: each speaks of a file that its engine refuses, and of no mended one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.check import CheckReport, check
from lstm_onnx.check.rule import TARGETS, rule
from lstm_onnx.check.rules import all_rules, find_rule
from lstm_onnx.deploy.triton import deploy_triton
from lstm_onnx.errors import ConfigError
from lstm_onnx.quantization import quantize
from tests.conformance.by_hand import H
from tests.quantization import operators

from ..violations import (
    LENGTHS,
    Case,
    all_of,
    attributes,
    axis,
    base,
    in_float32,
    lstm,
    nothing,
    outside,
    quantized,
    store,
    then,
    typed,
    without_input,
)

RULES = [item for item in all_rules() if item.target]
FLOAT64 = typed(np.float64, TensorProto.DOUBLE)


def scan(computed: bool) -> onnx.ModelProto:
    """A Scan whose body reads a value that its graph stores or computes."""
    state, step = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("h", "x_t"))
    after, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("h_t", "y_t"))
    nodes = [
        helper.make_node("Mul", ["h", "decay"], ["kept"]),
        helper.make_node("Add", ["kept", "x_t"], ["h_t"]),
        helper.make_node("Identity", ["h_t"], ["y_t"]),
    ]
    body = helper.make_graph(nodes, "body", [state, step], [after, result])
    node = helper.make_node("Scan", ["h0", "x"], ["hn", "y"], "scan", body=body, num_scan_inputs=1)
    stored = numpy_helper.from_array(np.float32(0.5), "root" if computed else "decay")
    before = [helper.make_node("Mul", ["root", "root"], ["decay"], "square")] if computed else []
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("h0", ["batch", 4]), ("x", ["time", "batch", 4]))
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("hn", ["batch", 4]), ("y", ["time", "batch", 4]))
    ]
    graph = helper.make_graph([*before, node], "graph", values, ends, [stored])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def scan_file(folder: Path) -> Path:
    onnx.save(scan(computed=True), folder / "m.onnx")
    return folder / "m.onnx"


def without_computing(model: onnx.ModelProto) -> None:
    model.CopyFrom(scan(computed=False))


def without_states(model: onnx.ModelProto) -> None:
    for name in ("initial_h", "initial_c"):
        without_input(name)(model)
    del model.metadata_props[:]


def fixed(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for at, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                axis(value.name, at, {"time": 6, "batch": 2}[dim.dim_param])(model)


def last_attribute_gone(model: onnx.ModelProto) -> None:
    lstm(model).attribute.pop()


def fewer_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.pop()
    model.graph.output.pop()


def without_cell_state(model: onnx.ModelProto) -> None:
    lstm(model).output[2] = ""
    model.graph.output.pop()


def repeated(model: onnx.ModelProto) -> None:
    """X is one step, which is repeated."""
    axis("X", 0, 1)(model)
    store(times=np.array([5, 1, 1]))(model)
    model.graph.node.insert(0, helper.make_node("Expand", ["X", "times"], ["steps"], "repeat"))
    model.graph.node.insert(1, helper.make_node("Identity", ["steps"], ["same"], "same"))
    lstm(model).input[0] = "same"


def not_repeated(model: onnx.ModelProto) -> None:
    del model.graph.node[:2]
    lstm(model).input[0] = "X"
    axis("X", 0, "time")(model)


def cut_to_longest(model: onnx.ModelProto) -> None:
    """Y without the steps that no sequence has."""
    then("Slice", "nought", "longest", "nought")(model)
    store(nought=np.array([0]))(model)
    model.graph.node.insert(1, helper.make_node("ReduceMax", ["sequence_lens"], ["most"], "most", keepdims=1))
    model.graph.node.insert(2, helper.make_node("Cast", ["most"], ["longest"], "longest", to=TensorProto.INT64))


def cut_to_time(model: onnx.ModelProto) -> None:
    """The same up to a size of X."""
    model.graph.node[1].CopyFrom(helper.make_node("Shape", ["X"], ["most"], "most", start=0, end=1))


def masked(*, wrong: bool = False, final: bool = False) -> Callable[[onnx.ModelProto], None]:
    """Of Y only the steps within the lengths are read; if `wrong`, only those past them."""

    def edit(model: onnx.ModelProto) -> None:
        store(nought=np.array(0, np.int32), one=np.array(1, np.int32), zero=np.float32(0))(model)
        store(axes=np.array([1, 2, 3]), ends=np.array([0, 2]), first=np.array(0))(model)
        nodes = [
            helper.make_node("Shape", ["X"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["size"]),
            helper.make_node("Cast", ["size"], ["time"], to=TensorProto.INT32),
            helper.make_node("Range", ["nought", "time", "one"], ["range"]),
            helper.make_node("Unsqueeze", ["range", "axes"], ["steps"]),
            helper.make_node("Unsqueeze", ["sequence_lens", "ends"], ["few"]),
            helper.make_node("Unsqueeze", ["few", "last"], ["counts"]),
            helper.make_node("Less", ["steps", "counts"], ["valid"]),
            helper.make_node("Where", ["valid", "zero", "Y"] if wrong else ["valid", "Y", "zero"], ["kept"]),
        ]
        store(last=np.array([3]))(model)
        model.graph.node.extend(nodes)
        kept = [helper.make_tensor_value_info("kept", TensorProto.FLOAT, [None] * 4)]
        ends = [item for item in model.graph.output if final and item.name == "Y_h"]
        del model.graph.output[:]
        model.graph.output.extend([*kept, *ends])
        del model.metadata_props[:]
        for index in (1, 2):
            if not (final and index == 1):
                lstm(model).output[index] = ""

    return edit


def feed_forward(model: onnx.ModelProto) -> None:
    """A Relu in its place."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "graph", ends[:1], ends[1:])
    model.CopyFrom(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def batch_first(model: onnx.ModelProto) -> None:
    """What `deploy triton` writes."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "m.onnx"
        onnx.save(model, file)
        deploy_triton(file, Path(folder) / "repository")
        (written,) = (Path(folder) / "repository").rglob("*.onnx")
        model.CopyFrom(onnx.load(written))


def with_peepholes(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    hidden = next(item.i for item in node.attribute if item.name == "hidden_size")
    node.input.extend([""] * (7 - len(node.input)) + ["peepholes"])
    array = np.ones((1, 3 * hidden), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(array, "peepholes"))


def default_int8(folder: Path) -> Path:
    """An LSTM in int8 of the default kernel."""
    operators.saved(folder / "float32.onnx", operators.Case("LSTM").model())
    quantize(folder / "float32.onnx", folder / "m.onnx")
    return folder / "m.onnx"


def int8_product(folder: Path) -> Path:
    """A product in int8 of the default kernel: its rows are divided by their scales, which no node takes."""
    stored = {"weight": np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)}
    node = helper.make_node("MatMul", ["x", "weight"], ["y"], "product")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 40])
    operators.saved(folder / "float32.onnx", operators.model_of([node], [x], {"y": ["batch", 40]}, stored))
    quantize(folder / "float32.onnx", folder / "m.onnx")
    return folder / "m.onnx"


def with_input(index: int, kind: int, shape: list[str | int]) -> Callable[[onnx.ModelProto], None]:
    """The only node takes another input."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[index] = "further"
        model.graph.input.append(helper.make_tensor_value_info("further", kind, shape))

    return edit


CASES: dict[str, Case] = {
    "openvino-lengths": Case(nothing, fixed, given=LENGTHS),
    "openvino-variant": Case(attributes(input_forget=1), last_attribute_gone),
    "openvino-float64": Case(nothing, in_float32, source=FLOAT64),
    "openvino-scan": Case(nothing, without_computing, source=scan_file),
    "openvino-int8": Case(nothing, without_computing, source=quantized),
    "tract-lengths": Case(nothing, without_input("sequence_lens"), given=LENGTHS),
    "tract-variant": Case(attributes(direction="reverse"), last_attribute_gone),
    "tract-states": Case(without_states, fixed),
    "tract-cell-state": Case(without_states, without_cell_state),
    "tract-expanded": Case(repeated, not_repeated),
    "tract-zeros": Case(
        all_of(store(shape=np.array([2, 3])), then("ConstantOfShape", source="shape", rank=2)),
        lambda model: model.graph.node[-1].attribute.append(
            helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float32)))
        ),
    ),
    "tract-precision": Case(nothing, feed_forward),
    "tract-data-slice": Case(cut_to_longest, cut_to_time, given=LENGTHS),
    "tract-float64": Case(nothing, in_float32, source=FLOAT64),
    "tract-int8": Case(nothing, without_computing, source=quantized),
    "web-external-data": Case(outside("weights.bin"), lambda model: model.CopyFrom(scan(computed=False))),
    "web-float64": Case(nothing, in_float32, source=FLOAT64),
    "webgpu-recurrent": Case(nothing, feed_forward),
    "coreml-recurrent": Case(nothing, feed_forward),
    "qnn-recurrent": Case(nothing, without_input("sequence_lens"), given=LENGTHS),
    "tensorrt-operator": Case(then("Unique", axis=0), fewer_nodes),
    "tensorrt-float64": Case(nothing, in_float32, source=FLOAT64),
    "triton-batch": Case(nothing, batch_first),
}
FURTHER: dict[str, tuple[str, Case]] = {
    "an activation": ("openvino-variant", Case(attributes(activations=["Sigmoid", "Softsign", "Tanh"]))),
    "peepholes": ("openvino-variant", Case(with_peepholes)),
    "lengths in int8": ("openvino-lengths", Case(with_input(4, TensorProto.INT32, ["batch"]), source=quantized)),
    "peepholes in int8": ("openvino-variant", Case(with_input(7, TensorProto.FLOAT, [1, 3 * H]), source=quantized)),
    "scales of rows in OpenVINO": ("openvino-scan", Case(nothing, source=default_int8)),
    "scales of rows in tract": ("tract-int8", Case(nothing, source=default_int8)),
    "ignored activations": ("tract-variant", Case(attributes(activations=["Sigmoid", "Relu", "Tanh"]))),
    "a bound": ("tract-variant", Case(attributes(clip=0.5))),
    "input_forget in QNN": ("qnn-recurrent", Case(attributes(input_forget=1))),
    "input_forget in TensorRT": ("tensorrt-operator", Case(attributes(input_forget=1))),
    "an operator of ONNX Runtime": ("tensorrt-operator", Case(nothing, source=quantized)),
    "a new opset": ("tensorrt-operator", Case(nothing, opset=22)),
    "lengths that a final state depends on": ("openvino-lengths", Case(masked(final=True), given=LENGTHS)),
    "lengths past which all is read": ("openvino-lengths", Case(masked(wrong=True), given=LENGTHS)),
    "a loop in QNN": ("qnn-recurrent", Case(nothing, source=scan_file)),
}


def findings(folder: Path, case: Case, name: str, *targets: str, mended: bool = False) -> CheckReport:
    edits = all_of(case.breaks, case.mends) if mended else case.breaks
    return check(base(folder, case, edits), provider="cpu", targets=targets or (find_rule(name).target,))


def told(report: CheckReport) -> set[str]:
    return {finding.rule for finding in report.findings if finding.violated}


def test_every_rule_on_an_engine_has_a_file_that_violates_it():
    assert set(CASES) == {item.name for item in RULES}
    assert {item.target for item in RULES} == set(TARGETS)
    assert all(item.source in str(item) or " ".join(item.source.split()[:2]) in str(item) for item in RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_for_its_engine_and_falls_silent_once_it_is_mended(name: str, tmp_path: Path):
    item = find_rule(name)
    report = findings(tmp_path, CASES[name], name)
    assert name in told(report), str(report)
    assert f"for {item.target}" in str(report)
    assert report.to_dict()["targets"] == [item.target]
    (severity,) = {finding.severity for finding in report.findings if finding.rule == name}
    assert severity == item.severity
    assert name not in told(findings(tmp_path, CASES[name], name, mended=True))
    others = [target for target in TARGETS if target != item.target]
    assert name not in told(findings(tmp_path, CASES[name], name, *others))


@pytest.mark.parametrize("which", FURTHER)
def test_a_rule_speaks_of_each_form(which: str, tmp_path: Path):
    name, case = FURTHER[which]
    assert name in told(findings(tmp_path, case, name))


@pytest.mark.parametrize("target", ["openvino", "tract", "web", "tensorrt"])
def test_a_plain_lstm_is_fit_for_it(target: str, tmp_path: Path):
    report = check(base(tmp_path, Case(nothing), nothing), provider="cpu", targets=[target], strict=True)
    assert report, str(report)
    informed = {item.rule for item in report.findings if item.violated and item.severity == "info"}
    assert {item.name for item in RULES if item.target == target} <= {*report.silent, *informed}


@pytest.mark.parametrize("name", ["openvino-int8", "openvino-scan", "tract-int8"])
def test_products_in_int8_by_constant_scales_are_no_finding(name: str, tmp_path: Path):
    report = findings(tmp_path, Case(nothing, source=int8_product), name)
    assert report, str(report)
    assert name not in told(report)


def test_lengths_past_which_nothing_is_read_are_no_finding(tmp_path: Path):
    case = Case(masked(), given=LENGTHS)
    assert "openvino-lengths" not in told(findings(tmp_path, case, "openvino-lengths"))
    backwards = Case(all_of(masked(), attributes(direction="reverse")), given=LENGTHS)
    assert "openvino-lengths" in told(findings(tmp_path, backwards, "openvino-lengths"))


def test_without_a_target_no_such_rule_is_applied(tmp_path: Path):
    report = check(base(tmp_path, CASES["openvino-lengths"], nothing), provider="cpu")
    assert not {item.name for item in RULES} & {*report.silent, *told(report)}


def test_an_unknown_target_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="'tensorflow' is not known; it must be one of openvino, tract"):
        check(base(tmp_path, Case(nothing), nothing), targets=["tensorflow"])


def test_a_rule_on_an_engine_says_its_source():
    with pytest.raises(ValueError, match="source is not said"):
        rule("LO699", "no-source", "info", summary="s", why="w", fix="f", target="tract")
