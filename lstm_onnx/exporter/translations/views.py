"""Translations of views that change nothing, such as a squeeze of axes that are not 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from ...errors import ExportError
from .size_arithmetic import INT64, constant, op


def _squeeze(x: Any, dims: int | Sequence[int]) -> Any:
    """PyTorch leaves an axis that is not 1; ONNX's Squeeze fails there."""
    rank = len(x.shape)
    places = [place % rank for place in ((dims,) if isinstance(dims, int) else dims)] if rank else []
    ones = sorted({place for place in places if x.shape[place] == 1})
    return op.Squeeze(x, constant(ones, INT64)) if ones else op.Identity(x)


def _same(x: Any, *_: Any, **__: Any) -> Any:
    return op.Identity(x)


def _same_dtype(x: Any, dtype: int) -> Any:
    if ir.DataType(dtype) != x.dtype:
        raise ExportError(
            "tensor.view(dtype) reads the same bytes as another dtype, which has no form in ONNX; use tensor.to(dtype)"
        )
    return op.Identity(x)


VIEWS: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.squeeze.dim: lambda x, dim: _squeeze(x, dim),
    torch.ops.aten.squeeze.dims: lambda x, dim: _squeeze(x, dim),
    torch.ops.aten.view.dtype: _same_dtype,
    torch.ops.prims.view_of.default: _same,
}
