"""A model's bytes piece by piece are protobuf's own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.onnxgraph.serialize import Tensor, model_pieces

ARRAYS = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4),
    "transposed": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 4), np.int8),
    "long": np.zeros(20_000, np.uint8),
    "half": np.ones((2, 2), np.float16),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
    "bfloat16": np.ones(3, ml_dtypes.bfloat16),
    "int4": np.array([1, -2, 3], ml_dtypes.int4),
    "text": np.array(["a", "ä"], object),
}


def _model() -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    own = numpy_helper.from_array(np.ones(4, np.float32), "own")
    graph = helper.make_graph([helper.make_node("Add", ["x", "own"], ["y"])], "g", values[:1], values[1:], [own])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    )
    model.doc_string = "a model"
    graph = model.graph
    graph.doc_string = "a graph"
    graph.value_info.add(name="inner")
    graph.metadata_props.add(key="k", value="v")
    helper.set_model_props(model, {"key": "value"})
    return model


@pytest.mark.parametrize("names", [[], *([name] for name in ARRAYS), list(ARRAYS)], ids=str)
def test_the_pieces_are_the_bytes_of_protobuf(names: list[str]) -> None:
    pieces, end = model_pieces(_model(), [Tensor.of(name, ARRAYS[name]) for name in names])
    complete = _model()
    complete.graph.initializer.extend(numpy_helper.from_array(ARRAYS[name], name) for name in names)
    assert b"".join([*pieces, end]) == complete.SerializeToString(deterministic=True)


def test_a_tensor_in_another_file_has_no_bytes_here() -> None:
    proto = TensorProto(name="w", dims=[2], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    proto.external_data.add(key="location", value="w.data")
    pieces, end = model_pieces(_model(), [Tensor(proto)])
    read = onnx.ModelProto.FromString(b"".join([*pieces, end]))
    assert read.graph.initializer[1] == proto
