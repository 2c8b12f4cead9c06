"""Computes the values of a few nodes by running them in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, OperatorSetIdProto, helper, numpy_helper

from ..runtime.call import call
from ..runtime.providers import open_session


def computed(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, np.ndarray],
    feeds: Mapping[str, np.ndarray],
    names: Sequence[str],
    opsets: Iterable[OperatorSetIdProto],
    *,
    ir_version: int = 8,
) -> dict[str, np.ndarray]:
    """Run nodes as a model of their own, and return the values in `names`.

    Args:
        nodes: in order.
        constants: stored values, some of which they may read.
        feeds: the other values that they read.
        names: the names of the values to return.
        opsets: the operator sets of the model that the nodes are from.
        ir_version: the IR version of that model.

    Raises:
        LSTMOnnxError: ONNX Runtime does not run them.
    """
    model = model_of(nodes, constants, feeds, names, opsets, ir_version=ir_version)
    session, _ = open_session(model.SerializeToString(), "cpu", 1)
    return dict(zip(names, call("nodes of a model", session.run, list(names), dict(feeds)), strict=True))


def model_of(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, np.ndarray],
    feeds: Mapping[str, np.ndarray],
    names: Sequence[str],
    opsets: Iterable[OperatorSetIdProto],
    *,
    ir_version: int = 8,
) -> ModelProto:
    """The model that has only these nodes; for the arguments see `computed`."""
    read = {name for node in nodes for name in node.input}
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "nodes", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
