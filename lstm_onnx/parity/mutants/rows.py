"""What a file makes of the rows of a table, each by itself, before any of them meets another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import NodeProto

from ...onnxgraph.compute import computed
from .graph_edit import Edit

_UNARY = frozenset(
    {"Identity", "Relu", "LeakyRelu", "Elu", "Gelu", "Sigmoid", "Tanh", "HardSigmoid", "Softplus", "Clip"}
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div"})


def after_layers_of_rows(edit: Edit, value: str, rows: np.ndarray) -> list[np.ndarray]:
    """What is read of the rows of a table, after the linear maps, norms and activations that each goes through.

    A change of a row that changes none of it, such as one before a unit that is zero either way, changes no output.

    Args:
        edit: the model.
        value: the rows that were looked up, whose last axis has the features.
        rows: ``(rows, features)``, to compute it for.

    Returns:
        An array for each value that is read, with a row for each of `rows`.

    Raises:
        LSTMOnnxError: ONNX Runtime does not run the layers by themselves.
    """
    nodes, own = [], {value}
    for node in edit.graph.node:
        if own & set(node.input) and _is_by_row(edit, node, own):
            nodes.append(node)
            own.update(node.output)
    ends = [name for name in own if edit.is_output(name) or any(node not in nodes for node in edit.readers(name))]
    constants = {name: edit.constant(name) for node in nodes for name in node.input}
    arrays = {name: array for name, array in constants.items() if array is not None}
    names = [name for name in sorted(ends) if name != value]
    version = edit.model.ir_version
    found = computed(nodes, arrays, {value: rows}, names, edit.model.opset_import, ir_version=version) if names else {}
    return [rows if name == value else found[name] for name in sorted(ends)]


def _is_by_row(edit: Edit, node: NodeProto, own: Iterable[str]) -> bool:
    """Whether each row of its output depends on the same row of one input alone."""
    others = [edit.constant(name) for name in node.input if name and name not in own]
    if len(node.output) != 1 or len(others) != len([name for name in node.input if name]) - 1:
        return False
    constants = [array for array in others if array is not None]
    if len(constants) < len(others):
        return False
    attributes = {item.name: item.i for item in node.attribute}
    if node.op_type in _UNARY:
        return True
    if node.op_type in _BINARY:
        return all(array.ndim <= 1 for array in constants)
    if node.op_type == "LayerNormalization":
        return attributes.get("axis", -1) == -1 and node.input[0] in own
    if node.op_type == "Gemm":
        return not attributes.get("transA") and node.input[0] in own and all(one.ndim <= 2 for one in constants)
    return node.op_type == "MatMul" and node.input[0] in own and all(array.ndim == 2 for array in constants)
