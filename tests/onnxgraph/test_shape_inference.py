"""Shape inference by onnx, on a copy of the model that it can do with."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from string import ascii_letters

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lstm_onnx.check.graph import Graph
from lstm_onnx.onnxgraph import shape_of
from lstm_onnx.onnxgraph.shape_inference import has_negative_dims, with_shapes, without_weights
from tests.check.models import STACKED, export


def value(name: str, *shape: int | str | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    *nodes: NodeProto, inputs: tuple[onnx.ValueInfoProto, ...], opset: int = 18, **stored: object
) -> ModelProto:
    tensors = [numpy_helper.from_array(np.array(array), name) for name, array in stored.items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), [value("y", None, None)], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs, outputs, kind.lower(), **attributes)


def test_a_well_formed_model_loses_nothing(tmp_path: Path):
    model = onnx.load_model(export(tmp_path, STACKED))
    before = model.SerializeToString()
    copy = without_weights(model)
    assert copy.graph.node == model.graph.node
    expected = onnx.shape_inference.infer_shapes(model, data_prop=True)
    assert with_shapes(copy).graph.value_info == expected.graph.value_info
    assert with_shapes(copy).graph.output == expected.graph.output
    assert model.SerializeToString() == before
    assert not has_negative_dims(model)


def test_large_weights_are_left_behind_and_small_ones_kept(tmp_path: Path):
    model = onnx.load_model(export(tmp_path, {"input_size": 100, "hidden_size": 100}))
    copy = without_weights(model)
    assert copy.ByteSize() < 10_000 < model.ByteSize()
    for tensor, kept in zip(model.graph.initializer, copy.graph.initializer, strict=True):
        assert (tensor.name, tensor.dims, tensor.data_type) == (kept.name, kept.dims, kept.data_type)
        assert (kept == tensor) is (tensor.ByteSize() <= 2**16)


def test_computed_shapes_follow_with_data_propagation_alone():
    model = model_of(
        node("Shape", "x", outputs=("s",)),
        node("Reshape", "flat", "s"),
        inputs=(value("x", "n", 3), value("flat", "m")),
    )  # fmt: skip
    shapes = [
        shape_of(with_shapes(without_weights(model), data_prop=prop).graph.output[0].type) for prop in (True, False)
    ]
    assert shapes[0] == ("n", 3)
    assert shapes[1] is not None
    assert shapes[1] != shapes[0]


def test_negative_sizes_are_open_ones():
    """As some exporters write them, and as ONNX Runtime reads them."""
    model = model_of(node("Relu", "x"), inputs=(value("x", -1, 3),))
    assert has_negative_dims(model)
    copy = without_weights(model)
    assert shape_of(copy.graph.input[0].type) == (None, 3)
    assert shape_of(model.graph.input[0].type) == (-1, 3)
    shaped = Graph(with_shapes(copy))
    rows, columns = shape_of(shaped.outputs["y"]) or (0, 0)
    assert (isinstance(rows, int), columns) == (False, 3)


def test_numbers_without_end_are_not_carried_along():
    """What shapes are computed from is carried number by number, and a file of few bytes can ask for all memory."""
    joined = [
        helper.make_node("Concat", [before, before], [after], axis=0)
        for before, after in pairwise(["strange", *ascii_letters[:34], "y"])
    ]
    counted = [node("Cast", "n", outputs=("c",), to=TensorProto.INT64), node("Unsqueeze", "c", "one")]
    models = [
        model_of(*joined, inputs=(value("x", 1),)),
        model_of(*counted, inputs=(value("n", 2**33, kind=TensorProto.INT32),), one=[1]),
    ]
    code = (
        "import resource, sys, onnx\n"
        "from lstm_onnx.onnxgraph.shape_inference import with_shapes, without_weights\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "with_shapes(without_weights(onnx.load_model_from_string(sys.stdin.buffer.read())))\n"
    )
    for model in models:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input=model.SerializeToString(), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
