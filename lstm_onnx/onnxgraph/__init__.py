"""An ONNX graph as others made it, to be read: scopes within scopes, tensors by their sizes, where values come from."""

from __future__ import annotations

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
    "Dim",
    "Scope",
    "Shape",
    "Tensor",
    "Value",
    "Weight",
    "attributes_of",
    "dtype_name",
    "is_default",
    "shape_of",
    "shown",
    "text",
    "typed",
    "value_of",
]
