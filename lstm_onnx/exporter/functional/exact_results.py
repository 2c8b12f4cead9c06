"""Which results of an operator no right implementation rounds, such as ``n.float() * 0.5`` of whole numbers.

IEEE 754 has one result of an addition or a product, and a copy, a maximum or ``floor`` computes nothing.  If that
result is a number of the dtype, every library gives it, and a comparison or a ``round`` which meets its threshold there
has one right side.  Of functions such as ``exp``, a mean or a quotient, which a library may compute as a product with
the reciprocal, no result is taken as exact, even if it is 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

_PICKED = {
    *("_to_copy", "clone", "copy", "fill", "zero", "alias", "lift_fresh_copy", "masked_fill", "where", "cat", "stack"),
    *("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "repeat", "roll", "flip", "tril"),
    *("triu", "constant_pad_nd", "index", "index_select", "index_put", "gather", "scatter", "select_scatter", "take"),
    *("slice_scatter", "masked_select", "masked_scatter", "embedding", "sort", "topk", "max", "min", "amax", "amin"),
    *("maximum", "minimum", "clamp", "clamp_min", "clamp_max", "relu", "hardtanh", "cummax", "cummin", "median"),
    *("neg", "abs", "sign", "floor", "ceil", "trunc", "round", "max_pool2d_with_indices", "reflection_pad1d"),
    *("replication_pad1d", "unfold", "im2col"),
}
"""aten operators whose results are among their arguments' numbers, or whole ones next to them."""
_COMPUTED = {"add", "sub", "rsub", "mul"}
_QUOTIENTS = {"div", "floor_divide"}
"""Exact for powers of two, whose reciprocals are numbers of the dtype as well."""
_COUNTS = {"sum", "cumsum"}
"""Exact in any order for whole numbers and halves."""
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge"}


def may_be_exact(
    name: str, args: tuple[Any, ...], keywords: dict[str, Any], native: torch.dtype, terms: Tensor | None
) -> Tensor | bool:
    """Where the result of an aten operator is exact if it is a number of a dtype.

    Args:
        name: the operator's name.
        args: its arguments, before it changes any of them in place.
        keywords: its keyword arguments.
        native: the dtype in which a file computes.
        terms: the sum of the terms' absolute values, for an operator that adds them up.

    Returns:
        Booleans that can be broadcast to the result.
    """
    name = name.removesuffix("_")
    if name in _PICKED:
        return True
    if any(isinstance(arg, complex) or (isinstance(arg, Tensor) and arg.is_complex()) for arg in args):
        return False
    if name in _COUNTS and terms is not None:
        twice = args[0].double() * 2
        return terms <= 1 / torch.finfo(native).eps if torch.equal(twice, twice.trunc()) else False
    if name in _COMPUTED and all(_is_one(part) for part in (*args[2:], keywords.get("alpha", 1))):
        return is_exact(args[0], native) & is_exact(args[1], native)
    if name in _QUOTIENTS:
        return is_exact(args[0], native) & is_exact(args[1], native) & _is_power_of_two(args[1])
    return False


def as_compared(name: str, args: tuple[Any, ...], native: torch.dtype) -> tuple[Any, ...]:
    """The arguments of an aten operator; of a float64 copy's comparison with a Python number, float32's number.

    ``x > 0.3`` compares a float32 `x` with float32's 0.3, which in a float64 copy of the module would be above 0.3.
    """
    copied = native == torch.float32 and torch.get_default_dtype() == torch.float64  # see `inference_context`
    if copied and name in _COMPARISONS and args[0].dtype == torch.float64 and type(args[1]) is float:
        return (args[0], float(np.float32(args[1])), *args[2:])
    return args


def is_exact(number: Any, dtype: torch.dtype) -> Tensor:
    """Where a number or a tensor is of numbers of a dtype."""
    wide = torch.as_tensor(number, dtype=torch.float64)
    return wide.to(dtype).double() == wide


def _is_power_of_two(number: Any) -> Tensor:
    return torch.frexp(torch.as_tensor(number, dtype=torch.float64)).mantissa.abs() == 0.5


def _is_one(factor: Any) -> bool:
    return isinstance(factor, int) and factor == 1
