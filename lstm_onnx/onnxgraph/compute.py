"""What nodes compute, by ONNX Runtime."""

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
    """Values that nodes compute by themselves.

    Args:
        nodes: in order.
        constants: stored values, of which they may read some.
        feeds: the other values that they read.
        names: of the values that are wanted.
        opsets: the operator sets of the model that the nodes are from.
        ir_version: of that model.

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
    """The model that nodes are by themselves; for the arguments see `computed`."""
    read = {name for node in nodes for name in node.input}
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items() if name in read]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "nodes", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
