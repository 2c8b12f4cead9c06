"""The checker on files that others made, on broken ones, and on what is not a model at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lstm_onnx.check import check
from lstm_onnx.errors import FileError, LSTMOnnxError, ModelError

from ..models import PLAIN, STACKED, H, by_hand, edited, export, failing, saved

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
    assert "batch is fixed" not in text  # its state h is of one sequence


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
    assert "skip  LO502 runnable       not tried" in str(report)


def test_an_output_that_is_not_as_declared(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time"])
    path = saved(tmp_path, helper.make_graph([helper.make_node("Transpose", ["x"], ["y"])], "g", [x], [y]))
    text = failing(check(path, provider="cpu"), "runnable")
    assert "at batch 3, time 7: the output y has shape (7, 3), and the file says (batch, time)" in text


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


def test_an_input_without_use_whose_name_is_not_text(tmp_path: Path) -> None:
    path = export(tmp_path, PLAIN)
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("zz", onnx.TensorProto.FLOAT, ["batch"]))
    path.write_bytes(model.SerializeToString().replace(b"\x02zz", b"\x02z\xff"))
    report = check(path, provider="cpu")
    assert any(finding.where == r"b'z\xff'" for finding in report.findings)
    assert json.dumps(report.to_dict())


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


# --- External data ---


def external(folder: Path, **entries: str) -> Path:
    """One LSTM whose first matrix lies elsewhere: its entries, with a file w.data that is long enough for it."""
    path = by_hand(folder)
    model = onnx.load_model(path)
    tensor = model.graph.initializer[0]
    (folder / "w.data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


SIZE_OF_W = 4 * 4 * H * 4


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "is not a path"),
        ({"location": ""}, "is not a path"),
        ({"location": "."}, "is not a regular file"),
        ({"location": "../w.data"}, "is outside the model's folder"),
        ({"location": "inner/../../w.data"}, "is outside the model's folder"),
        ({"location": "/etc/passwd"}, "is outside the model's folder"),
        ({"location": "C:\\w.data"}, "is outside the model's folder"),
        ({"location": "none.data"}, "is missing"),
        ({"location": "folder"}, "is not a regular file"),
        ({"location": "link.data"}, "is a symbolic link"),
        ({"location": "away/w.data"}, "is outside the model's folder, by a link"),
        ({"location": "w.data", "offset": "x"}, "has an offset or a length that is not a number"),
        ({"location": "w.data", "offset": "4", "length": str(SIZE_OF_W)}, f"ends at byte {SIZE_OF_W + 4}"),
        ({"location": "w.data", "offset": "4"}, f"ends at byte {SIZE_OF_W + 4}"),
        ({"location": "w.data", "offset": "-4"}, "ends at byte -4"),
    ],
)
def test_external_data_that_is_amiss(tmp_path: Path, entries: dict[str, str], said: str) -> None:
    away = tmp_path / "away"
    away.mkdir()
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, **entries)
    for place in (away, tmp_path):
        (place / "w.data").write_bytes((folder / "w.data").read_bytes())
    (folder / "folder").mkdir()
    (folder / "link.data").symlink_to(folder / "w.data")
    (folder / "away").symlink_to(away, target_is_directory=True)
    report = check(path, provider="cpu")
    assert said in failing(report, "external-data")
    # Whatever the rule says is also what keeps the file from being used.
    assert {"valid-onnx", "runnable"} & {finding.rule for finding in report.failures}, str(report)


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "w.data"},
        {"location": "./w.data"},
        {"location": "w.data", "offset": "0", "length": str(SIZE_OF_W)},
        {"location": "inner/w.data"},
        {"location": "here/w.data"},
    ],
)
def test_external_data_in_its_place(tmp_path: Path, entries: dict[str, str]) -> None:
    path = external(tmp_path, **entries)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/w.data").write_bytes((tmp_path / "w.data").read_bytes())
    (tmp_path / "here").symlink_to(tmp_path, target_is_directory=True)
    report = check(path, provider="cpu")
    assert report, str(report)
    assert "external-data" in report.silent


def test_a_link_to_the_model_leads_to_its_data_too(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "link.onnx").symlink_to(external(inner, location="w.data"))
    report = check(tmp_path / "link.onnx", provider="cpu")
    assert "external-data" in report.silent, str(report)


# --- Operators ---


def test_an_operator_of_another_domain(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy")
    node = helper.make_node("Scale", ["x"], ["y"], "scale", domain="com.example")
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)], ir_version=8
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    report = check(path, provider="cpu")
    said = "scale: com.example.Scale of the custom domain com.example is unknown to ONNX Runtime"
    assert failing(report, "unknown-operator") == said


def test_an_operator_of_onnx_outside_its_default_domain_is_not_onnx_runtimes(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy")
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0, 0.0], scale=[2.0, 2.0])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    report = check(tmp_path / "m.onnx", provider="cpu")
    assert report, str(report)
    assert "contrib-operator" in report.silent


@pytest.mark.parametrize(("kind", "opset", "first"), [("Gelu", 17, 20), ("LayerNormalization", 16, 1)])
def test_an_operator_of_a_later_opset(tmp_path: Path, kind: str, opset: int, first: int) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy")
    scale = numpy_helper.from_array(np.ones(2, np.float32), "s")
    node = helper.make_node(kind, ["x"] if kind == "Gelu" else ["x", "s"], ["y"], "late")
    report = check(saved(tmp_path, helper.make_graph([node], "g", [x], [y], [scale]), opset=opset), provider="cpu")
    if first > opset:
        said = f"late: {kind} exists since opset {first}, but the file requires opset {opset}"
        assert failing(report, "unknown-operator") == said
    else:  # ONNX Runtime knows it from before ONNX did
        assert "unknown-operator" in report.silent


def test_a_build_that_does_not_list_its_operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.check.rules.operators.operator_versions", dict)
    report = check(by_hand(tmp_path), provider="cpu")
    assert report, str(report)
    (finding,) = [finding for finding in report.findings if finding.rule == "unknown-operator"]
    assert finding.skipped


# --- What training left behind ---


def behind(folder: Path, *nodes: onnx.NodeProto, **constants: np.ndarray) -> set[str]:
    """The rules that speak of these nodes, from x to z."""
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xz")
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    report = check(saved(folder, helper.make_graph(list(nodes), "g", [x], [z], stored)), provider="cpu")
    return {finding.rule for finding in report.findings if finding.violated}


def test_dropout_in_training(tmp_path: Path) -> None:
    half, on = np.float32(0.5), np.array(True)
    node = helper.make_node("Dropout", ["x", "p", "on"], ["z"])
    assert behind(tmp_path, node, p=half, on=on) == {"training-mode"}
    assert behind(tmp_path, node, p=half, on=np.array(False)) == set()
    assert behind(tmp_path, node, p=np.float32(0), on=on) == set()  # a ratio of 0 leaves all as it is
    assert behind(tmp_path, helper.make_node("Dropout", ["x", "p"], ["z"]), p=half) == set()
    assert behind(tmp_path, helper.make_node("Dropout", ["x", "", "on"], ["z"]), on=on) == {"training-mode"}


def test_batch_normalization_in_training(tmp_path: Path) -> None:
    numbers = {name: np.ones(4, np.float32) for name in ("s", "b", "m", "v")}
    evaluated = helper.make_node("BatchNormalization", ["x", *numbers], ["z"])
    training = helper.make_node("BatchNormalization", ["x", *numbers], ["z", "m2", "v2"], training_mode=1)
    assert behind(tmp_path, evaluated, **numbers) == set()
    assert behind(tmp_path, training, **numbers) >= {"training-mode"}


@pytest.mark.parametrize("kind", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
def test_generators(tmp_path: Path, kind: str) -> None:
    assert behind(tmp_path, helper.make_node(kind, ["x"], ["z"])) == {"random-operator"}


@pytest.mark.parametrize(("dim", "passes"), [("time - 2", True), ("batch - 7", False)])
def test_an_axis_that_follows_from_another_and_may_be_none(tmp_path: Path, dim: str, passes: bool) -> None:
    axis = dim.split()[0]
    values = {"x": [dim, 3], "z": [axis, 2]}
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in values],
        "axes",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()],
        [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, shape) for name, shape in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, tmp_path / "m.onnx")
    report = check(tmp_path / "m.onnx", provider="cpu")
    assert bool(report) is passes, str(report)
    found = "it needs a time of 3 or more" if passes else "the input x would have the shape (-6, 3)"
    assert found in str(report)
