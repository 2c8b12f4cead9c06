"""An ONNX graph as others made it, to be read: scopes within scopes, tensors by their sizes, where values come from."""

from __future__ import annotations

from .nodes import MOST_NODES, bodies_of, graphs_of, inlined_size, nodes_of, outer_values
from .scopes import Scope, Weight
from .tensors import (
    Dim,
    Shape,
    Tensor,
    Value,
    attributes_of,
    dtype_name,
    is_default,
    shape_of,
    shown,
    text,
    typed,
    value_of,
)

__all__ = [
    "MOST_NODES",
    "Dim",
    "Scope",
    "Shape",
    "Tensor",
    "Value",
    "Weight",
    "attributes_of",
    "bodies_of",
    "dtype_name",
    "graphs_of",
    "inlined_size",
    "is_default",
    "nodes_of",
    "outer_values",
    "shape_of",
    "shown",
    "text",
    "typed",
    "value_of",
]
