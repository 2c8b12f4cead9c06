"""Graphs of one input, written node by node."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper

from .random_graphs import Builder

Make = Callable[[Builder], str]


def graph_of(make: Make, *, time: int = 2, opset: int = 18) -> ModelProto:
    """x (batch, 4, time) through `make`."""
    b = Builder(None)  # type: ignore[arg-type]
    b.weight = lambda *shape: b.const(np.random.default_rng(sum(shape)).standard_normal(shape), np.float32)  # type: ignore[method-assign]
    output = make(b)
    shape = ["batch", 4, "time"] if time == 2 else ["batch", "time", 4]
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        b.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def steps_of(b: Builder) -> str:
    return b.add("Shape", "x", start=2, end=3)
