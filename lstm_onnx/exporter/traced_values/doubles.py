"""Numbers of Python's beside float64 tensors, and norms and activations of these, written out.

torch.onnx takes a float of Python's for a float32, and ONNX's operators have their numbers as float32 attributes: an
eps of 1e-5 would be off by 2e-8 of itself, and the file's outputs by a million times float64's rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def as_double(number: Any) -> Any:
    """A float that float32 does not hold as a float64 tensor; anything else as it is."""
    inexact = isinstance(number, float) and math.isfinite(number) and float(np.float32(number)) != number
    return torch.tensor(number, dtype=torch.float64) if inexact else number


def with_doubles(args: Sequence[Any]) -> tuple[Any, ...] | None:
    """Arguments with their floats as float64 tensors, where there is one beside a float64 tensor; None elsewhere."""
    if not any(isinstance(item, Tensor) and item.dtype == torch.float64 for item in args):
        return None
    found = tuple(map(as_double, args))
    return found if any(one is not other for one, other in zip(found, args, strict=True)) else None


def _normalized(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    return (x - mean) / torch.sqrt(variance + as_double(eps))


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    axes = list(range(-len(normalized_shape), 0))
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    # Not square(): ONNX Runtime makes an operator with a float32 eps of a norm with a power.
    variance = (centred * centred).mean(axes, keepdim=True)
    return _scaled(_normalized(x, mean, variance, eps), weight, bias, tuple(normalized_shape))


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> Tensor | None:
    if training or mean is None or variance is None:
        return None
    shape = (-1,) + (1,) * (x.dim() - 2)
    return _scaled(_normalized(x, mean.reshape(shape), variance.reshape(shape), eps), weight, bias, shape)


def _leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor | None:
    return None if inplace else torch.where(x > 0, x, x * as_double(negative_slope))


def _elu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor | None:
    return None if inplace else torch.where(x > 0, x, (x.exp() - 1) * as_double(alpha))


WRITTEN_OUT: Mapping[Callable[..., Any], Callable[..., Tensor | None]] = {
    F.layer_norm: _layer_norm,
    F.batch_norm: _batch_norm,
    F.leaky_relu: _leaky_relu,
    F.elu: _elu,
}
"""By torch's functions, with their arguments; None where one is called as ever."""
