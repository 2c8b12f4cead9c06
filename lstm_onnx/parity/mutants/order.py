"""Outputs of a layer of which only sums, means or maxima over all steps are read, whatever the steps' order."""

from __future__ import annotations

from onnx import NodeProto

from ...onnxgraph.recurrent import RecurrentLayer
from ...onnxgraph.tensors import attributes_of
from .graph_edit import Edit

_BY_ELEMENT = frozenset({"Identity", "Cast", "Dropout", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Elu", "Neg", "Abs"})
_WITH_CONSTANT = frozenset({"Add", "Sub", "Mul", "Div"})
_REDUCTIONS = frozenset(
    {
        *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
        *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
    }
)


def unread_order(edit: Edit, layer: RecurrentLayer) -> str:
    """Of a Scan's reverse direction, no output depends on the order of the steps in what it gives for each."""
    if not layer.scan or layer.directions != 2 or not edit.used(layer.y[1]):
        return ""
    return "its steps are only reduced over time, in any order" if _any_order(edit, layer.y[1], 0) else ""


def _any_order(edit: Edit, value: str, time: int) -> bool:
    """Whether only reductions over the axis `time` read a value, each number of a step apart from the others."""
    return not edit.is_output(value) and all(
        _reader_in_any_order(edit, node, value, time) for node in edit.readers(value)
    )


def _reader_in_any_order(edit: Edit, node: NodeProto, value: str, time: int) -> bool:
    rank, attributes = len(edit.shapes.get(value, ())), attributes_of(node)
    if not rank or node not in edit.graph.node:  # of unknown rank, or in the body of another node
        return False
    out, op = str(node.output[0]), node.op_type
    constants = [edit.constant(name) for name in node.input if name != value]
    if op in _REDUCTIONS:
        axes = attributes.get("axes")
        if axes is None and constants:
            axes = None if constants[0] is None else constants[0].reshape(-1)
        return axes is not None and time in {int(axis) % rank for axis in axes}
    if op in _BY_ELEMENT and len(node.input) == 1:
        return _any_order(edit, out, time)
    if op in _WITH_CONSTANT:
        # A constant of fewer axes has none beside the time, or one size for all of it.
        same = all(one is not None and (one.ndim < rank - time or one.shape[time - rank] == 1) for one in constants)
        return same and all(one is not None and one.ndim <= rank for one in constants) and _any_order(edit, out, time)
    if op == "Transpose" and "perm" in attributes:
        return _any_order(edit, out, [int(axis) for axis in attributes["perm"]].index(time))
    if op == "Squeeze" and len(constants) == 1 and constants[0] is not None:
        removed = {int(axis) % rank for axis in constants[0].reshape(-1)}
        return time not in removed and _any_order(edit, out, time - sum(axis < time for axis in removed))
    if op == "Concat":
        return int(attributes.get("axis", 0)) % rank != time and _any_order(edit, out, time)
    return False
