"""Pooling over an axis whose size stays symbolic while it is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true


def max_pool1d(
    input: Tensor,  # as torch names it
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """torch.max_pool1d as max_pool2d over one row: torch.export makes a constant of the size that max_pool1d gets."""

    def of_row(value: Any, above: int) -> tuple[int, int]:
        return above, value[0] if isinstance(value, (tuple, list)) else value

    kernel = of_row(kernel_size, 1)
    steps = kernel if stride is None or stride == () or stride == [] else of_row(stride, 1)
    row = input.unsqueeze(-2)
    pooled = torch.max_pool2d(row, kernel, steps, of_row(padding, 0), of_row(dilation, 1), ceil_mode)
    return pooled.squeeze(-2)


def pooled_over_all(
    name: str,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    divisor_override: int | None = None,
    **_: Any,
) -> Tensor | None:
    """A pooling whose kernel is as long as an axis, by the size of that axis; None for others.

    It is the mean or the largest entry along the axis, whatever its size is and where that depends on lengths, too.
    """
    count = int(name[-2])
    if (
        x.dim() <= count
        or any(number != default for given, default in ((padding, 0), (dilation, 1)) for number in _each(given, count))
        or divisor_override is not None
    ):
        return None
    kernel = _each(kernel_size, count)
    whole = [
        isinstance(size, torch.SymInt) and statically_known_true(size == own)
        for size, own in zip(kernel, x.shape[-count:], strict=True)
    ]
    if not any(whole):
        return None
    dims = [place - count for place in range(count) if whole[place]]
    x = x.mean(dims, keepdim=True) if name.startswith("avg") else x.amax(dims, keepdim=True)
    if all(whole):
        return x
    steps = _each(stride or kernel_size, count)
    kernel, steps = (
        [1 if of_all else size for of_all, size in zip(whole, own, strict=True)] for own in (kernel, steps)
    )
    pooled: Tensor = getattr(torch.nn.functional, name)(x, kernel, steps, ceil_mode=ceil_mode)
    return pooled


def _each(value: Any, count: int) -> list[Any]:
    """One for each axis."""
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return values * count if len(values) == 1 else values
