"""The translation of a product over axes, to which torch decomposes cumulative products, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from .size_arithmetic import INT64, cast, constant, op

_IN_REDUCEPROD = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.INT32, INT64)


def _product(x: Any, dims: Sequence[int] | None, output_dtype: Any = None) -> Any:
    """Of whole numbers and bools, in int64, as PyTorch has it."""
    dtype = x.dtype if output_dtype is None or output_dtype == -1 else ir.DataType(output_dtype)
    x = cast(x, dtype if dtype in _IN_REDUCEPROD else INT64)
    product = op.ReduceProd(x, keepdims=0) if dims is None else op.ReduceProd(x, constant([*dims], INT64), keepdims=0)
    return product if dtype in _IN_REDUCEPROD else cast(product, dtype)


PRODUCTS: Mapping[Any, Callable[..., Any]] = {torch.ops.prims.prod.default: _product}
