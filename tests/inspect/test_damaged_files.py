"""Files that are no model, or a damaged one: an error that names the file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from onnx import ModelProto, helper

from lstm_onnx.errors import FileError, ModelError
from lstm_onnx.inspect import inspect
from lstm_onnx.onnxgraph import bodies_of, nodes_of
from lstm_onnx.quantization import quantize

from .test_inspect import F, H, exported, graph, inspected, lstm


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for name, words in (("none.onnx", "No such file"), ("empty.onnx", "is empty"), (".", "directory")):
        with pytest.raises(FileError, match=words):
            inspect(tmp_path / name)


@pytest.mark.parametrize(
    "content", [b"\xff" * 64, b"not a model at all, but text\n", b"\x00", b"\x08\x08", b"PK\x03\x04"]
)
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.onnx: is not an ONNX model"):
        inspect(path)


def test_every_truncation_is_an_error_or_a_whole_graph(tmp_path: Path) -> None:
    _, whole = exported(tmp_path, input_size=F, hidden_size=H)
    content = (tmp_path / "m.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    parsed = 0
    for end in range(1, len(content)):
        path.write_bytes(content[:end])
        try:
            result = inspect(path)
        except ModelError as error:
            assert "cut.onnx" in str(error)  # noqa: PT017
        else:
            parsed += 1  # cut between whole fields of the model, behind the graph and the opset
            assert result.lstms == whole.lstms
    assert parsed <= 8


def test_an_attribute_of_a_function_outside_of_one(tmp_path: Path) -> None:
    node = lstm()
    size = next(item for item in node.attribute if item.name == "hidden_size")
    size.ClearField("i")
    size.ref_attr_name = "of_a_function"
    assert inspected(tmp_path, graph([node])).lstms[0].hidden_size == H  # as its weights say


@pytest.mark.parametrize("name", [b"l0/LSTM", b"Squeeze", b"batch", b"forward"])
def test_text_that_is_not_utf_8(tmp_path: Path, name: bytes) -> None:
    exported(tmp_path, input_size=F, hidden_size=H)
    content = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "bad.onnx").write_bytes(content.replace(name, b"\xff" * len(name)))
    if name == b"forward":  # an attribute may hold any bytes
        assert inspect(tmp_path / "bad.onnx").lstms[0].direction == "\ufffd" * 7
    else:
        with pytest.raises(ModelError, match=r"bad\.onnx: is damaged"):
            inspect(tmp_path / "bad.onnx")


def test_a_negative_dimension(tmp_path: Path) -> None:
    contents = graph([lstm()])
    contents.initializer[0].dims[0] = -1
    with pytest.raises(ModelError, match=r"other\.onnx.*'W' has a negative dimension"):
        inspected(tmp_path, contents)


def _without_inputs(model: ModelProto, name: str) -> None:
    del next(node for node in nodes_of(model.graph.node) if node.name == name).input[:]


def _without_body_inputs(model: ModelProto) -> None:
    (body,) = (body for node in model.graph.node for body in bodies_of(node))
    del body.input[:]


def _flat_weights(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/int8"):
            del tensor.dims[:]


@pytest.mark.parametrize("kernel", ["MatMulInteger", "MatMulNBits"])
@pytest.mark.parametrize(
    "edit",
    [
        _without_body_inputs,
        _flat_weights,
        partial(_without_inputs, name="l0/LSTM/forward/Scan"),
        partial(_without_inputs, name="l0/LSTM/forward/c0_or_nan"),
    ],
)
def test_damaged_int8_layers(edit: Callable[..., None], kernel: str, tmp_path: Path) -> None:
    """They are counted as other nodes, or what is left of them is shown."""
    exported(tmp_path, input_size=F, hidden_size=H)
    quantize(tmp_path / "m.onnx", tmp_path / "int8.onnx", kernel=kernel)
    model = ModelProto.FromString((tmp_path / "int8.onnx").read_bytes())
    edit(model)
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    assert all(layer.kind == "int8 LSTM" for layer in inspect(tmp_path / "bad.onnx").lstms)


def test_damaged_metadata(tmp_path: Path) -> None:
    exported(tmp_path, input_size=F, hidden_size=H)
    path = tmp_path / "m.onnx"
    for value in ("{", '{"hidden_size": 0}', "[1]"):
        model = ModelProto.FromString(path.read_bytes())
        helper.set_model_props(model, {"lstm_onnx.spec": value})
        (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"bad\.onnx"):
            inspect(tmp_path / "bad.onnx")
