"""Finds whether a layer's output is read past the end of a sequence, where only `sequence_lens` makes it zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from onnx import NodeProto

from .recurrent import SEQUENCE_LENS, input_of, is_onnx_operator

_POINTWISE = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Relu", "Tanh", "Sigmoid"})


class Values(Protocol):
    """Access to a graph: the node that computes a value, and the nodes that read it."""

    def maker(self, value: str) -> NodeProto | None:
        """The node that computes a value."""
        ...

    def readers(self, value: str) -> Iterable[NodeProto]:
        """The nodes that read a value."""
        ...

    def is_output(self, value: str) -> bool:
        """Whether a value is an output of the graph."""
        ...

    def constant(self, value: str) -> np.ndarray | None:
        """A value's content, if the file stores it."""
        ...


def is_masked(values: Values, value: str, lengths: str) -> bool:
    """Whether only steps within the lengths are read, since each reader is a Where or a layer with the same lengths."""
    if values.is_output(value):
        return False
    for node in values.readers(value):
        if node.op_type in _POINTWISE:
            right = all(is_masked(values, out, lengths) for out in node.output if out)
        elif node.op_type == "Where":
            right = value == node.input[1] != node.input[2] and is_within(values, node.input[0], lengths)
        else:
            right = is_onnx_operator(node) and node.input[0] == value and input_of(node, SEQUENCE_LENS) == lengths
        if not right:
            return False
    return True


def is_within(values: Values, condition: str, lengths: str) -> bool:
    """Whether a condition is ``step < length``."""
    node = values.maker(condition)
    while node is not None and node.op_type in _POINTWISE:
        node = values.maker(node.input[0])
    if node is None or node.op_type != "Less":
        return False
    return root(values, node.input[1]) == root(values, lengths) and _is_range(values, node.input[0])


def root(values: Values, value: str) -> str:
    """The value from which a value is made by nothing but changes of shape or type."""
    node = values.maker(value)
    return root(values, node.input[0]) if node is not None and node.op_type in _POINTWISE else value


def _is_range(values: Values, value: str) -> bool:
    node = values.maker(root(values, value))
    start = None if node is None or node.op_type != "Range" else values.constant(node.input[0])
    return start is not None and not np.any(start)
