"""The checker on files that others made, on broken ones, and on what is no model at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from lstm_onnx.check import check
from lstm_onnx.errors import FileError, LSTMOnnxError, ModelError

from .models import PLAIN, STACKED, H, by_hand, edited, export, failing, saved

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
