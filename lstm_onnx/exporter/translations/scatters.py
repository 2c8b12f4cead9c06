"""Translations of scatters: of a source with more entries than the index, of a mean, and those by a name of their own.

ONNX's ScatterElements takes as many entries as there are indices, and knows no mean; torch.onnx writes the mean as the
last of the entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_scatter_add, aten_scatter_src

from ...errors import ExportError
from .size_arithmetic import INT64, constant, is_fraction, op

_REDUCTIONS = {
    "sum": "add",
    "add": "add",
    "mean": "add",
    "prod": "mul",
    "multiply": "mul",
    "amax": "max",
    "amin": "min",
}


def _fitting(source: Any, index: Any) -> Any:
    """The entries of the source that PyTorch takes: as many as the index has along each axis."""
    sizes, indices = (None if value.shape is None else [str(size) for size in value.shape] for value in (source, index))
    if sizes is None or indices is None or not sizes or (sizes == indices and "None" not in sizes):
        return source
    part = op.Slice(source, constant([0] * len(sizes), INT64), op.Shape(index))
    part.dtype, part.shape = source.dtype, index.shape
    return part


def _filled(number: Any, like: Any, index: Any) -> Any:
    return op.Expand(constant(number, like.dtype), op.Shape(index))


def _scatter_reduce(x: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool = True) -> Any:
    if reduce == "mean" and not is_fraction(x):
        raise ExportError("scatter_reduce gives no mean of whole numbers in ONNX; convert them to floats before")
    if len(x.shape) == 0:
        raise ExportError("scatter_reduce of a tensor without axes has no translation to ONNX; give it one")
    source, reduction = _fitting(source, index), _REDUCTIONS[reduce]
    start = x if include_self else op.ScatterElements(x, index, _filled(_neutral(reduction, x), x, index), axis=dim)
    found = op.ScatterElements(start, index, source, axis=dim, reduction=reduction)
    if reduce != "mean":
        return found
    one = constant(1.0, x.dtype)
    counts = op.Expand(constant(1.0 if include_self else 0.0, x.dtype), op.Shape(x))
    counts = op.ScatterElements(counts, index, _filled(1.0, x, index), axis=dim, reduction="add")
    return op.Div(found, op.Max(counts, one))  # where there are none, the number itself stays


def _neutral(reduction: str, x: Any) -> Any:
    """The number that changes no result."""
    if reduction in ("add", "mul"):
        return float(reduction == "mul") if is_fraction(x) else int(reduction == "mul")
    if is_fraction(x):
        return -math.inf if reduction == "max" else math.inf
    limits = np.iinfo(x.dtype.numpy())
    return int(limits.min if reduction == "max" else limits.max)


def _scatter_value(x: Any, dim: int, index: Any, value: float, *, reduce: str) -> Any:
    return _scatter_reduce(x, dim, index, _filled(_number(value, x), x, index), reduce)


def _number(value: float, x: Any) -> Any:
    return float(value) if is_fraction(x) else int(value)


_aten = torch.ops.aten
SCATTERS: Mapping[Any, Callable[..., Any]] = {
    _aten.scatter.src: lambda x, dim, index, src: aten_scatter_src(x, dim, index, _fitting(src, index)),
    _aten.scatter_add.default: lambda x, dim, index, src: aten_scatter_add(x, dim, index, _fitting(src, index)),
    _aten.scatter.reduce: lambda x, dim, index, src, *, reduce: _scatter_reduce(x, dim, index, src, reduce),
    _aten.scatter.value_reduce: _scatter_value,
    _aten.scatter_reduce.two: _scatter_reduce,
}
