"""Translations of functions of layers: attention with a mask, softmax, the loss of classes, and distances.

PyTorch gives zeros for a query that may see nothing.  torch.onnx gives the mean of the values for a boolean mask,
since its mask is the least number in the place of -inf, and NaN for one of floats.  It casts the result of a softmax
with a dtype, not its input; of a loss it leaves out an argument without a word; for distances it has no translation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.core import aten_native_batch_norm
from onnxscript.function_libs.torch_lib.ops.nn import aten_cross_entropy_loss, aten_scaled_dot_product_attention

from ...errors import ExportError
from .size_arithmetic import DOUBLE, INT64, cast, constant, is_fraction, op, requested


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Of four axes, as ``softmax(query @ key.T * scale + mask) @ value``."""
    features = query.shape[-1]
    if attn_mask is None or enable_gqa or dropout_p or not isinstance(features, int):
        return aten_scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    dtype = query.dtype
    if attn_mask.dtype == ir.DataType.BOOL:
        attn_mask = op.Where(attn_mask, constant(0.0, dtype), constant(-math.inf, dtype))
    else:
        attn_mask = cast(attn_mask, dtype)
    # As PyTorch does: each factor takes the root, so that their product does not overflow.
    root = constant(math.sqrt(1 / math.sqrt(features) if scale is None else scale), dtype)
    products = op.MatMul(op.Mul(query, root), op.Mul(op.Transpose(key, perm=[0, 1, 3, 2]), root))
    weights = op.Softmax(op.Add(products, attn_mask), axis=-1)
    # By the mask, not where the weights are NaN: those of a NaN in the query or the keys are NaN in PyTorch.
    # Not by its largest number: OpenVINO says that this is the lowest finite one, where all are -inf.
    hidden = cast(op.Equal(attn_mask, constant(-math.inf, dtype)), dtype)
    all_hidden = cast(op.ReduceMin(hidden, constant([-1], INT64), keepdims=1), ir.DataType.BOOL)
    weights = op.Where(all_hidden, constant(0.0, dtype), weights)
    return op.MatMul(weights, value)


def _softmax(compute: Callable[..., Any]) -> Callable[..., Any]:
    """softmax or log_softmax, of the input as the dtype that it is computed in."""

    def translated(x: Any, dim: int, dtype: int | None = None) -> Any:
        x = cast(x, requested(dtype) or x.dtype)
        if len(x.shape) > 0:
            return compute(x, axis=dim)
        return op.Squeeze(compute(op.Unsqueeze(x, constant([0], INT64)), axis=0), constant([0], INT64))

    return translated


def _log_softmax(x: Any, axis: int) -> Any:
    """ONNX Runtime's kernel for float64 gives numbers beside a NaN and an infinity, where PyTorch gives NaN."""
    if x.dtype != DOUBLE:
        return op.LogSoftmax(x, axis=axis)
    axes = constant([axis], INT64)
    shifted = op.Sub(x, op.ReduceMax(x, axes))
    return op.Sub(shifted, op.Log(op.ReduceSum(op.Exp(shifted), axes)))


def _cross_entropy(
    x: Any,
    target: Any,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    if label_smoothing != 0 or is_fraction(target):
        what = "label_smoothing" if label_smoothing != 0 else "a probability for each class"
        raise ExportError(f"cross_entropy with {what} has no translation to ONNX; write it with log_softmax")
    return aten_cross_entropy_loss(x, target, weight, reduction, ignore_index)


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Any, ...]:
    """In training by the batch's own statistics, where torch.onnx takes the running ones."""
    own = (None, None) if training else (mean, var)
    found: tuple[Any, ...] = aten_native_batch_norm(x, weight, bias, *own, False, momentum, eps)
    return found


def _updating_batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Any, ...]:
    """As `_batch_norm`, and the running statistics after it."""
    found = _batch_norm(x, weight, bias, mean, var, training, momentum, eps)
    if not training:
        return (*found, op.Identity(mean), op.Identity(var))
    kind: ir.DataType = x.dtype
    axes = constant([axis for axis in range(len(x.shape)) if axis != 1], INT64)
    center = op.ReduceMean(x, axes)
    distance = op.Sub(x, center)
    count = op.Cast(op.Div(op.Size(x), op.Squeeze(op.Shape(x, start=1, end=2))), to=kind)
    squares = op.ReduceSum(op.Mul(distance, distance), axes, keepdims=0)
    spread = op.Div(squares, op.Sub(count, constant(1.0, kind)))
    new, kept = constant(momentum, kind), constant(1 - momentum, kind)
    updated = (
        op.Add(op.Mul(kept, old), op.Mul(new, own))
        for old, own in ((mean, op.ReduceMean(x, axes, keepdims=0)), (var, spread))
    )
    return (*found, *updated)


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


_aten = torch.ops.aten
NN_FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.softmax.int: _softmax(op.Softmax),
    _aten.log_softmax.int: _softmax(_log_softmax),
    **dict.fromkeys((_aten.native_batch_norm.default, _aten._native_batch_norm_legit.default), _batch_norm),
    _aten._native_batch_norm_legit_functional.default: _updating_batch_norm,
    _aten.cross_entropy_loss.default: _cross_entropy,
    _aten._cdist_forward.default: _cdist_forward,
}
