"""Loading files: what is not a model is an error that names the file, and external data stays in the model's folder."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
from onnx import helper

from lstm_onnx.errors import FileError, ModelError
from lstm_onnx.onnxgraph import error_line, external_problem, load_inlined, load_model


def model_of(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [], []), opset_imports=[helper.make_opsetid("", 18)])


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_a_model_is_loaded_as_it_is_stored(tmp_path: Path):
    model = model_of(helper.make_node("Relu", ["x"], ["y"]))
    assert load_model(written(tmp_path / "m.onnx", model)) == model
    assert load_inlined(tmp_path / "m.onnx") == model


@pytest.mark.parametrize("content", [b"\xff" * 64, b"plain text\n", b"\x00", b"\x08\x08", b"PK\x03\x04"])
def test_what_is_no_model_is_an_error(content: bytes, tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"m\.onnx: is not an ONNX model, or is truncated.*; export or copy it again"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(("field", "lacking"), [("opset_import", "operator set"), ("graph", "graph")])
def test_a_part_that_is_missing_is_named(field: str, lacking: str, tmp_path: Path):
    model = model_of(helper.make_node("Relu", ["x"], ["y"]))
    model.ClearField(field)
    with pytest.raises(ModelError, match=f"it has no {lacking}"):
        load_model(written(tmp_path / "m.onnx", model))


def test_a_file_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "empty.onnx").touch()
    for name, words in (("none.onnx", "No such file"), ("empty.onnx", "is empty"), (".", "directory")):
        with pytest.raises(FileError, match=words):
            load_model(tmp_path / name)


def test_a_name_that_is_not_text_is_refused_where_names_count(tmp_path: Path):
    content = model_of(helper.make_node("Relu", ["xxxx"], ["y"])).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"xxxx", b"\xff" * 4))
    assert load_model(tmp_path / "m.onnx").graph.node
    with pytest.raises(ModelError, match="a name in it is not UTF-8 text"):
        load_inlined(tmp_path / "m.onnx")


def test_a_node_name_that_would_fill_memory_is_refused(tmp_path: Path):
    model = model_of(helper.make_node("Relu", ["x"], ["y"], "n" * 200_000))
    with pytest.raises(ModelError, match="a node's name has 200000 characters, more than the 131072 allowed"):
        load_inlined(written(tmp_path / "m.onnx", model))


@pytest.mark.parametrize(("ir_version", "inputs"), [(3, ["x"]), (4, ["x", "w"])])
def test_stored_values_of_old_files_are_no_inputs(ir_version: int, inputs: list[str], tmp_path: Path):
    """Before IR version 4 they had to be inputs as well; since then a caller may give others."""
    model = model_of(helper.make_node("Add", ["x", "w"], ["y"]))
    model.ir_version = ir_version
    model.graph.input.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xw")
    model.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]))
    assert [value.name for value in load_inlined(written(tmp_path / "m.onnx", model)).graph.input] == inputs


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")
def test_where_external_data_may_be(tmp_path: Path):
    folder = tmp_path / "models"
    (folder / "inner").mkdir(parents=True)
    file = folder / "m.onnx"
    for path in (tmp_path / "w.data", folder / "w.data", folder / "inner" / "w.data"):
        path.write_bytes(b"1234")
    (folder / "link").symlink_to(folder / "w.data")
    assert external_problem(file, "w.data") == external_problem(file, "inner/w.data") == ""
    for location, problem in (
        ("", "is not a path"),
        (".", "is not a regular file"),
        ("inner", "is not a regular file"),
        ("../w.data", "is outside the model's folder"),
        (str(folder / "w.data"), "is outside the model's folder"),
        ("none", "is missing"),
        ("link", "is a symbolic link"),
    ):
        assert external_problem(file, location) == problem, location


def test_the_error_of_another_package_is_cut_to_a_line():
    assert error_line(ValueError("one\n  two")) == "one two"
    assert error_line(ValueError()) == "ValueError"
    assert len(error_line("word " * 1000)) <= 400
