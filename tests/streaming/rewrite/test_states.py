"""The states that streams keep: from where loops start, and steps that none can hold."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from lstm_onnx.streaming.rewrite import RefusedError

from .chunks import ChunkRun, difference, rewritten, session
from .graphs import graph_of
from .random_graphs import Builder


def test_a_loop_starts_from_one_of_several_rows() -> None:
    """As ``zeros(layers, batch, size)[0]``, the state of the first of several layers."""

    def summed(b: Builder) -> str:
        state = helper.make_tensor_value_info("h", TensorProto.FLOAT, [None, 4])
        step = helper.make_tensor_value_info("s", TensorProto.FLOAT, [None, 4])
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("next", "y")]
        nodes = [helper.make_node("Add", ["h", "s"], ["next"]), helper.make_node("Identity", ["next"], ["y"])]
        shape = b.add("Concat", b.const([2]), b.add("Shape", "x", end=1), b.const([4]), axis=0)
        start = b.add("Gather", b.add("Expand", b.weight(2, 1, 1), shape), b.const(0))
        x = b.add("Transpose", "x", perm=[2, 0, 1])
        body = helper.make_graph(nodes, "step", [state, step], ends)
        b.nodes.append(helper.make_node("Scan", [start, x], ["last", "sums"], body=body, num_scan_inputs=1))
        return b.add("Transpose", "sums", perm=[1, 2, 0])

    model = graph_of(summed)
    x = np.random.default_rng(0).standard_normal((2, 4, 30)).astype(np.float32)
    assert not difference(ChunkRun(rewritten(model, {"x": 2}), {"x": 2}), session(model), {"x": x}, 2, 0)


def test_a_state_of_two_dynamic_axes_is_refused() -> None:
    def make(b: Builder) -> str:
        before = b.add("Pad", "x", b.const([0, 0, 1, 0, 0, -1]))
        return b.add("Add", "x", before)

    model = graph_of(make)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    with pytest.raises(RefusedError, match=r"would keep steps of shape \(batch, width, 1\), and a state") as caught:
        rewritten(model, {"x": 2})
    assert "dynamic_shapes" in caught.value.instead


def test_a_loop_over_another_axis_of_each_step_is_refused_as_that() -> None:
    """Its state has the steps among its rows, such as the zeros of ``(batch * time, size)``."""

    def over_channels(b: Builder) -> str:
        row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in ("h", "s", "next", "y")]
        nodes = [helper.make_node("Add", ["h", "s"], ["next"]), helper.make_node("Identity", ["next"], ["y"])]
        x = b.add("Transpose", "x", perm=[1, 0, 2])
        start = b.add("Expand", b.weight(1, 1), b.add("Shape", x, start=1))
        body = helper.make_graph(nodes, "step", row[:2], row[2:])
        b.nodes.append(helper.make_node("Scan", [start, x], ["last", "sums"], body=body, num_scan_inputs=1))
        return b.add("Transpose", "sums", perm=[1, 0, 2])

    with pytest.raises(RefusedError, match="scans an axis other than time"):
        rewritten(graph_of(over_channels), {"x": 2})
