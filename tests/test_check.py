"""The checker: sound files pass, and each way of being wrong fails by its own rule, naming the culprit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lstm_onnx.check import CheckReport, Finding, check
from lstm_onnx.errors import FileError, LSTMOnnxError, ModelError, ProviderError
from lstm_onnx.exporter.lstm import export_lstm
from lstm_onnx.runtime.providers import cuda_unavailable
from lstm_onnx.spec import ExportOptions, LSTMSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RULES = ["valid-onnx", "metadata", "dynamic-axes", "states-paired", "provider", "runnable"]
PLAIN: dict[str, Any] = {"input_size": 4, "hidden_size": 3}
STACKED: dict[str, Any] = {**PLAIN, "num_layers": 2, "bidirectional": True, "batch_first": True}
ONE_LAYER: dict[str, Any] = {**STACKED, "num_layers": 1}
PROJECTED: dict[str, Any] = {"input_size": 4, "hidden_size": 5, "proj_size": 2}
H = 3
"""hidden_size of the LSTMs written by hand."""


def export(folder: Path, sizes: dict[str, Any], **options: Any) -> Path:
    spec = LSTMSpec(**sizes)
    rng = np.random.default_rng(1)
    state = {name: rng.normal(0, 0.3, shape).astype(spec.dtype) for name, shape in spec.parameter_shapes().items()}
    path = folder / "m.onnx"
    export_lstm(spec, ExportOptions(**options), state, path)
    return path


def edited(folder: Path, edit: Callable[[ModelProto], object], sizes: dict[str, Any], **options: Any) -> CheckReport:
    path = export(folder, sizes, **options)
    model = onnx.load_model(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return check(path, provider="cpu")


def failing(report: CheckReport, rule: str) -> str:
    """What the failed findings of `rule` say."""
    assert not report
    found = [finding for finding in report.failures if finding.rule == rule]
    assert found, str(report)
    assert all(finding.fix for finding in found)
    return "\n".join(f"{finding.where}: {finding.message}" for finding in found)


def by_hand(
    folder: Path, *extra: Any, x: Any = ("time", "batch", 4), h: Any = (1, "batch", H), **keywords: Any
) -> Path:
    """A file that another tool could have made: one LSTM, states in and out, no metadata."""
    rng = np.random.default_rng(2)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)
        for name, shape in (("W", (1, 4 * H, 4)), ("R", (1, 4 * H, H)))
    ]
    feature = keywords.pop("feature", "x")
    inputs = [("x", x), ("h", h), ("c", (1, "batch", H)), *keywords.pop("inputs", [])]
    lstm = helper.make_node(
        "LSTM", [feature, "W", "R", "", "", "h", "c"], ["y", "hN", "cN"], "rnn", hidden_size=H, **keywords
    )
    outputs = [("y", ("time", 1, "batch", H)), ("hN", (1, "batch", H)), ("cN", (1, "batch", H))]
    graph = helper.make_graph(
        [*[item for item in extra if not isinstance(item, TensorProto)], lstm],
        "other",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [*weights, *[item for item in extra if isinstance(item, TensorProto)]],
    )
    return saved(folder, graph)


def saved(folder: Path, graph: onnx.GraphProto, states: dict[str, str] | None = None, opset: int = 17) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if states is not None:
        helper.set_model_props(model, {"lstm_onnx.states": json.dumps(states)})
    path = folder / "other.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def set_initializer(model: ModelProto, name: str, values: Any) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.array(values), name))


def set_states(model: ModelProto, states: Any) -> None:
    next(entry for entry in model.metadata_props if entry.key == "lstm_onnx.states").value = json.dumps(states)


def fix_dim(model: ModelProto, index: int, axis: int, size: int) -> None:
    model.graph.input[index].type.tensor_type.shape.dim[axis].dim_value = size


# --- Sound files ---


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        (PLAIN, {}),
        (PLAIN, {"opset": 14, "lengths": True}),
        ({**PLAIN, "dtype": "float16"}, {}),
        (STACKED, {}),
        (STACKED, {"opset": 23, "lengths": True}),
        (PROJECTED, {"lengths": True}),
        ({**PROJECTED, "num_layers": 2, "bidirectional": True, "batch_first": True}, {"lengths": True, "opset": 14}),
        ({**PROJECTED, "dtype": "float64"}, {}),
        ({**PROJECTED, "bidirectional": True}, {"projection": "fold", "opset": 23}),
    ],
    ids=str,
)
def test_sound_exports_pass(tmp_path: Path, sizes: dict[str, Any], options: dict[str, Any]) -> None:
    report = check(export(tmp_path, sizes, **options), provider="cpu")
    assert report, str(report)
    assert [finding.rule for finding in report.findings] == RULES
    assert not any(finding.skipped for finding in report.findings)
    assert "batch 3, time 5" in report.findings[-1].message


def test_a_report_is_json_and_a_table(tmp_path: Path) -> None:
    path = export(tmp_path, PLAIN)
    report = check(path, provider="cpu")
    table = json.loads(json.dumps(report.to_dict()))
    assert table["passed"] is True
    assert (table["file"], table["provider"]) == (str(path), "cpu")
    assert set(table["findings"][0]) == {"rule", "passed", "where", "message", "fix", "skipped"}
    lines = str(report).splitlines()
    assert lines[2] == "ok    dynamic-axes   batch and time are open in every input and output"
    assert lines[-1] == f"{path}: passed on cpu"


def test_nothing_checked_is_not_passed() -> None:
    assert not CheckReport("m.onnx", "cpu", ())
    assert not CheckReport("m.onnx", "cpu", (Finding("runnable", False, "", "not tried", skipped=True),))
    bad = CheckReport("m.onnx", "cpu", (Finding("a", True, "", "so"), Finding("b", False, "n", "wrong", "mend it")))
    assert not bad
    assert str(bad).splitlines()[-1] == "m.onnx: FAILED (b) on cpu"
    assert "FAIL  b              n: wrong\n                     fix: mend it" in str(bad)


def test_the_checked_file_stays_as_it_is(tmp_path: Path) -> None:
    path = export(tmp_path, {"input_size": 80, "hidden_size": 100})
    before = path.read_bytes()
    assert check(path, provider="cpu")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_auto_says_where_it_ran(tmp_path: Path) -> None:
    report = check(export(tmp_path, PLAIN))
    assert report
    assert report.provider == ("cpu" if cuda_unavailable() else "cuda")


# --- Sizes baked in ---


@pytest.mark.parametrize(("axis", "name"), [(0, "time"), (1, "batch")])
def test_a_fixed_axis_of_the_input(tmp_path: Path, axis: int, name: str) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, 0, axis, 5), PLAIN)
    text = failing(report, "dynamic-axes")
    assert f"l0/LSTM: {name} is fixed at 5 in the input input" in text


@pytest.mark.parametrize("index", [1, 2])
def test_a_state_with_a_fixed_batch(tmp_path: Path, index: int) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, index, 1, 2), PLAIN)
    state = ("h0", "c0")[index - 1]
    assert f"batch is fixed at 2 in the input {state} (1, 2, 3)" in failing(report, "dynamic-axes")
    assert f"{state} is (1, 2, 3)" in failing(report, "states-paired")
    assert "cannot run at batch 3, time 5" in failing(report, "runnable")


def test_the_origin_of_a_fixed_axis_is_named(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, 0, 0, 2), STACKED)
    assert "l0/LSTM: batch is fixed at 2 in the value input/time_first" in failing(report, "dynamic-axes")
    assert "which comes from the input input (2, time, 4)" in failing(report, "dynamic-axes")


def test_a_reshape_with_a_frozen_literal(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: set_initializer(model, "ints/0_0_6", [3, 5, 6]), ONE_LAYER)
    text = failing(report, "dynamic-axes")
    assert "l0/output: Reshape makes" in text
    assert "the fixed (3, 5, 6)" in text
    text = failing(report, "runnable")
    assert "cannot run at batch 1, time 1" in text
    assert "batch 3, time 5" not in text  # the very sizes that were baked in
    assert "onnxruntime_src" not in text


def test_a_reshape_that_freezes_one_axis_fails_to_run(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: set_initializer(model, "ints/0_0_6", [3, -1, 6]), STACKED)
    assert "cannot run at batch 2, time 7" in failing(report, "runnable")


def test_a_fixed_batch_in_a_scan(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: fix_dim(model, 0, 1, 4), PROJECTED)
    assert "l0/Scan: batch is fixed at 4" in failing(report, "dynamic-axes")


def test_an_input_that_the_metadata_promises_is_missing(tmp_path: Path) -> None:
    def unpromise(model: ModelProto) -> None:
        del model.graph.input[3]
        model.graph.node[0].input[4] = ""

    report = edited(tmp_path, unpromise, PLAIN, lengths=True)
    assert "the input lengths (batch) is not there" in failing(report, "dynamic-axes")


# --- States ---


@pytest.mark.parametrize("states", [{"h0": "cn", "c0": "hn"}, {"h0": "hn"}, {"h0": "nowhere", "c0": "cn"}, {}])
def test_a_bare_lstm_with_wrong_pairs(tmp_path: Path, states: dict[str, str]) -> None:
    report = edited(tmp_path, lambda model: set_states(model, states), PLAIN)
    assert "a bare LSTM has h0 <- hn, c0 <- cn" in failing(report, "states-paired")
    assert [finding.rule for finding in report.failures] == ["states-paired"]


def test_damaged_metadata(tmp_path: Path) -> None:
    report = edited(tmp_path, lambda model: set_states(model, [1]), PLAIN)
    assert "damaged" in failing(report, "metadata")
    assert "damaged" in failing(report, "runnable")


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({"state": "hN"}, "state <- hN: the input state is not there; the inputs are x, h, c"),
        ({"h": "hT"}, "h <- hT: the output hT is not there; the outputs are y, hN, cN"),
        ({"h": "hN", "c": "hN"}, "c <- hN: hN already feeds h"),
        ({"h": "y"}, "h <- y: h is (1, batch, 3) and y is (time, 1, batch, 3)"),
    ],
)
def test_pairs_that_do_not_fit(tmp_path: Path, states: dict[str, str], said: str) -> None:
    model = onnx.load_model(by_hand(tmp_path))
    graph = onnx.shape_inference.infer_shapes(model).graph
    report = check(saved(tmp_path, graph, states), provider="cpu")
    assert failing(report, "states-paired") == said
    assert [finding.rule for finding in report.failures] == ["states-paired"]


def test_pairs_of_two_dtypes(tmp_path: Path) -> None:
    a = helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])
    b = helper.make_tensor_value_info("b", TensorProto.INT64, [2])
    node = helper.make_node("Cast", ["a"], ["b"], to=TensorProto.INT64)
    report = check(saved(tmp_path, helper.make_graph([node], "g", [a], [b]), {"a": "b"}), provider="cpu")
    assert failing(report, "states-paired") == "a <- b: a is float and b is int64"


# --- Files that others made ---


def test_a_foreign_lstm_passes_and_its_states_are_named(tmp_path: Path) -> None:
    report = check(by_hand(tmp_path), provider="cpu")
    assert report, str(report)
    assert "h, c are states that nothing pairs" in str(report)


def test_a_foreign_lstm_with_a_fixed_batch(tmp_path: Path) -> None:
    report = check(by_hand(tmp_path, x=("time", 2, 4)), provider="cpu")
    assert "rnn: batch is fixed at 2 in the input x (time, 2, 4)" in failing(report, "dynamic-axes")


def test_one_sequence_without_a_batch_is_by_design(tmp_path: Path) -> None:
    axis = numpy_helper.from_array(np.array([1]), "axis")
    add = helper.make_node("Unsqueeze", ["x", "axis"], ["x3"])
    path = by_hand(tmp_path, axis, add, x=("time", 4), h=(1, 1, H), feature="x3")
    text = str(check(path, provider="cpu"))
    assert "in the value x3" not in text


def test_the_batch_first_layout_is_refused_by_onnx_runtime(tmp_path: Path) -> None:
    report = check(by_hand(tmp_path, x=("batch", "time", 4), h=("batch", 1, H), layout=1), provider="cpu")
    assert "layout" in failing(report, "runnable").lower()


def test_no_recurrent_node_is_said(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy")
    path = saved(tmp_path, helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    report = check(path, provider="cpu")
    assert report
    assert "no recurrent node" in report.findings[2].message
    assert "x (rows, 2)" in report.findings[2].message


def test_inputs_that_cannot_be_drawn_are_skipped(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.STRING, ["n"]) for name in "xy")
    path = saved(tmp_path, helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y]))
    report = check(path, provider="cpu")
    assert report, str(report)
    assert report.findings[-1].skipped
    assert "skip  runnable       not tried" in str(report)


def test_an_output_that_is_not_as_declared(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time"])
    path = saved(tmp_path, helper.make_graph([helper.make_node("Transpose", ["x"], ["y"])], "g", [x], [y]))
    text = failing(check(path, provider="cpu"), "runnable")
    assert "at batch 3, time 5: the output y has shape (5, 3), and the file says (batch, time)" in text


# --- Files that are not models, or broken ones ---


def test_an_invalid_attribute(tmp_path: Path) -> None:
    def misspell(model: ModelProto) -> None:
        model.graph.node[0].attribute.append(helper.make_attribute("hiden_size", 3))

    assert "hiden_size" in failing(edited(tmp_path, misspell, PLAIN), "valid-onnx")


def test_an_operator_that_does_not_exist(tmp_path: Path) -> None:
    def rename(model: ModelProto) -> None:
        model.graph.node[0].op_type = "LSTN"

    report = edited(tmp_path, rename, PLAIN)
    assert "LSTN" in failing(report, "valid-onnx")
    assert "LSTN" in failing(report, "runnable")
    assert str(tmp_path) not in failing(report, "runnable")


def test_nodes_in_a_circle(tmp_path: Path) -> None:
    def close(model: ModelProto) -> None:
        model.graph.node[0].input[0] = model.graph.node[1].output[0]

    report = edited(tmp_path, close, PLAIN)
    assert failing(report, "valid-onnx")
    assert failing(report, "runnable")


def test_missing_external_data(tmp_path: Path) -> None:
    path = export(tmp_path, {"input_size": 80, "hidden_size": 100})
    model = onnx.load_model(path)
    onnx.save_model(model, path, save_as_external_data=True, location="w.data")
    assert check(path, provider="cpu")
    (tmp_path / "w.data").unlink()
    report = check(path, provider="cpu")
    assert "w.data" in failing(report, "valid-onnx")
    assert "w.data" in failing(report, "runnable")


def test_no_file_nothing_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for name in ("missing.onnx", "empty.onnx", ""):
        with pytest.raises(FileError, match=r"expected an \.onnx file"):
            check(tmp_path / name, provider="cpu")


def test_a_truncated_file_is_an_error_or_fails(tmp_path: Path) -> None:
    path = export(tmp_path, STACKED)
    content = path.read_bytes()
    graph_end = len(content) - 700
    for size in (1, 10, 100, *range(200, graph_end, 400)):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match="is not an ONNX model"):
            check(path, provider="cpu")
    for size in range(graph_end, len(content), 3):  # the metadata, whose entries can be lost one by one
        path.write_bytes(content[:size])
        try:
            report = check(path, provider="cpu")
        except ModelError:
            continue
        assert not report, f"{size} of {len(content)} bytes: {report}"


def test_a_file_that_lost_its_metadata(tmp_path: Path) -> None:
    def lose(model: ModelProto, entries: int) -> None:
        del model.metadata_props[-entries:]

    for entries in range(1, 6):
        report = edited(tmp_path, lambda model, entries=entries: lose(model, entries), PLAIN)
        assert "missing or cut off" in failing(report, "metadata")


@pytest.mark.parametrize("content", [b"\x00", b"not a model", b'{"json": 1}', b"\x08\x08", b"PK\x03\x04" + bytes(60)])
def test_what_is_no_model_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.json"  # the suffix decides nothing
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not an ONNX model"):
        check(path, provider="cpu")


def test_names_that_are_not_text(tmp_path: Path) -> None:
    path = export(tmp_path, PLAIN)
    path.write_bytes(path.read_bytes().replace(b"\x02c0", b"\x02c\xff").replace(b"l0/LSTM", b"l0/LS\xff\xff"))
    report = check(path, provider="cpu")
    assert not report
    assert json.dumps(report.to_dict())
    assert str(report)


def test_damaged_bytes_never_crash_nor_pass_unseen(tmp_path: Path) -> None:
    """Whatever one byte does, there is a report or an error of ours; never a raw exception."""
    path = export(tmp_path, PLAIN)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    outcomes = set()
    for position in rng.choice(len(content), 60, replace=False):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            outcomes.add(bool(check(path, provider="cpu")))
        except LSTMOnnxError:
            outcomes.add(None)
    assert False in outcomes


# --- Providers ---


def test_float64_on_the_cpu(tmp_path: Path) -> None:
    report = check(export(tmp_path, {**PLAIN, "dtype": "float64"}), provider="cpu")
    assert "is float64" in failing(report, "provider")
    assert report.findings[-1].skipped


def test_a_misspelt_provider(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match='"cudda" is unknown; it must be one of auto, cpu, cuda'):
        check(export(tmp_path, PLAIN), provider="cudda")


@pytest.mark.skipif(cuda_unavailable() is None, reason="there is a GPU here")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="CUDA cannot be used"):
        check(export(tmp_path, PLAIN), provider="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(cuda_unavailable() is not None, reason="needs an NVIDIA GPU")
def test_cuda_runs_every_node(tmp_path: Path) -> None:
    report = check(export(tmp_path, STACKED, lengths=True), provider="cuda")
    assert report, str(report)
    assert report.provider == "cuda"
