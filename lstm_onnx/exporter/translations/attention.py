"""The translation of ``scaled_dot_product_attention`` with a mask.

PyTorch gives zeros for a query that may see nothing.  torch.onnx gives the mean of the values for a boolean mask,
since its mask is the least number in the place of -inf, and NaN for one of floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention

from .size_arithmetic import cast, constant, op


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
    elif attn_mask.dtype != dtype:
        attn_mask = cast(attn_mask, dtype)
    # As PyTorch does: each factor takes the root, so that their product does not overflow.
    root = constant(math.sqrt(1 / math.sqrt(features) if scale is None else scale), dtype)
    products = op.MatMul(op.Mul(query, root), op.Mul(op.Transpose(key, perm=[0, 1, 3, 2]), root))
    weights = op.Softmax(op.Add(products, attn_mask), axis=-1)
    weights = op.Where(op.IsNaN(weights), constant(0.0, dtype), weights)
    return op.MatMul(weights, value)


ATTENTION: Mapping[Any, Callable[..., Any]] = {torch.ops.aten.scaled_dot_product_attention.default: _attention}
