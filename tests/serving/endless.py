"""A stateful model whose requests say how long they run: total = state + x, after as many steps of a Loop as x."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lstm_onnx.checksum import KEY, UNKNOWN, with_checksum

ENDLESS = 1e9
"""An input with which it runs for hours."""


def endless(path: Path) -> None:
    def value(
        name: str, kind: int = TensorProto.FLOAT, shape: tuple[int | str, ...] = ("batch", 1)
    ) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["work", "weight"], ["product"]),
            helper.make_node("Tanh", ["product"], ["workN"]),
            helper.make_node("Identity", ["go"], ["goN"]),
        ],
        "body",
        [value("i", TensorProto.INT64, ()), value("go", TensorProto.BOOL, ()), value("work", shape=(32, 32))],
        [value("goN", TensorProto.BOOL, ()), value("workN", shape=(32, 32))],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Max", ["most", "zero"], ["count"]),
        helper.make_node("Cast", ["count"], ["steps"], to=TensorProto.INT64),
        helper.make_node("Loop", ["steps", "", "weight"], ["worked"], body=body),
        helper.make_node("ReduceSum", ["worked"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "state"], ["added"]),
        helper.make_node("Add", ["added", "nothing"], ["total"]),
        helper.make_node("Identity", ["total"], ["stateN"]),
    ]
    arrays = {"zero": np.zeros((), np.float32), "weight": np.eye(32, dtype=np.float32)}
    graph = helper.make_graph(
        nodes,
        "endless",
        [value("x"), value("state")],
        [value("total"), value("stateN")],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    entries = {"lstm_onnx.states": '{"state": "stateN"}', "lstm_onnx.batch_mixes": '""', KEY: UNKNOWN}
    helper.set_model_props(model, entries)
    path.write_bytes(with_checksum(model.SerializeToString()))
