"""The translation of distances between all rows of two tensors, for which torch.onnx has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch

from .size_arithmetic import INT64, cast, constant, op


def _cdist_forward(one: Any, other: Any, p: float, compute_mode: int | None = None) -> Any:  # noqa: ARG001
    """``torch.cdist``: of differences, so that close rows do not cancel as in PyTorch's product of matrices."""
    kind: ir.DataType = one.dtype
    difference = op.Abs(op.Sub(op.Unsqueeze(one, constant([-2], INT64)), op.Unsqueeze(other, constant([-3], INT64))))
    last = constant([-1], INT64)
    if p == 0:
        different = cast(op.Not(op.Equal(difference, constant(0.0, kind))), kind)
        return op.ReduceSum(different, last, keepdims=0)
    if p == 1:
        return op.ReduceSum(difference, last, keepdims=0)
    if p == 2:
        return op.Sqrt(op.ReduceSum(op.Mul(difference, difference), last, keepdims=0))
    if p == math.inf:
        return op.ReduceMax(difference, last, keepdims=0)
    powers = op.ReduceSum(op.Pow(difference, constant(float(p), kind)), last, keepdims=0)
    return op.Pow(powers, constant(1 / p, kind))


DISTANCES: Mapping[Any, Callable[..., Any]] = {torch.ops.aten._cdist_forward.default: _cdist_forward}
