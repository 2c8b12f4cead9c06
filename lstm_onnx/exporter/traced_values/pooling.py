"""Pooling over an axis whose size stays symbolic while it is traced."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def max_pool1d(
    input: Tensor,  # as torch names it
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """torch.max_pool1d as max_pool2d over one row: torch.export makes a constant of the size that max_pool1d gets."""

    def of_row(value: int | Sequence[int], above: int) -> tuple[int, int]:
        return above, value if isinstance(value, int) else value[0]

    kernel = of_row(kernel_size, 1)
    steps = kernel if stride is None or stride == () or stride == [] else of_row(stride, 1)
    row = input.unsqueeze(-2)
    pooled = torch.max_pool2d(row, kernel, steps, of_row(padding, 0), of_row(dilation, 1), ceil_mode)
    return pooled.squeeze(-2)
