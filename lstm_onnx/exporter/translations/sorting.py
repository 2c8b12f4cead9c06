"""Translation of a stable sort, which torch.onnx has none for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from .size_arithmetic import INT64, cast, constant, op


def _sorted(x: Any, stable: Any = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001
    """By TopK, which gives equal numbers in their own order."""
    if len(x.shape) == 0:
        return op.Identity(x), constant(0, INT64)
    place = dim % len(x.shape)
    size = op.Shape(x, start=place, end=place + 1)
    whole = x.dtype in (ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT16, ir.DataType.INT8, ir.DataType.UINT8)
    values, indices = op.TopK(cast(x, INT64) if whole else x, size, axis=place, largest=int(descending), sorted=1)
    return (cast(values, x.dtype) if whole else values), indices


SORTING: Mapping[Any, Callable[..., Any]] = {torch.ops.aten.sort.stable: _sorted}
