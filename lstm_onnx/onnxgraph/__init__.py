"""Reads and writes ONNX graphs of any origin: files, subgraphs, shapes, recurrent layers, and sources of values."""

from __future__ import annotations

from .load import ONNX_ERRORS, error_line, external_problem, load_inlined, load_model
from .nodes import (
    MOST_NODES,
    bodies_of,
    graphs_of,
    inlined_size,
    node_label,
    node_name,
    nodes_of,
    outer_values,
    stored_tensors,
)
from .scopes import Scope, Weight
from .tensors import (
    Dim,
    Shape,
    Tensor,
    Value,
    attributes_of,
    axis_name,
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
    "ONNX_ERRORS",
    "Dim",
    "Scope",
    "Shape",
    "Tensor",
    "Value",
    "Weight",
    "attributes_of",
    "axis_name",
    "bodies_of",
    "dtype_name",
    "error_line",
    "external_problem",
    "graphs_of",
    "inlined_size",
    "is_default",
    "load_inlined",
    "load_model",
    "node_label",
    "node_name",
    "nodes_of",
    "outer_values",
    "shape_of",
    "shown",
    "stored_tensors",
    "text",
    "typed",
    "value_of",
]
