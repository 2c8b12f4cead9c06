"""Pooling and unfold over an axis whose size stays symbolic in a trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true


def max_pool1d(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """torch.max_pool1d as max_pool2d over one row: torch.export makes the output size of max_pool1d a constant."""

    def of_row(value: Any, above: int) -> tuple[int, int]:
        return above, value[0] if isinstance(value, (tuple, list)) else value

    kernel = of_row(kernel_size, 1)
    steps = kernel if stride is None or stride == () or stride == [] else of_row(stride, 1)
    row = x.unsqueeze(-2)
    return torch.max_pool2d(row, kernel, steps, of_row(padding, 0), of_row(dilation, 1), ceil_mode).squeeze(-2)


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
    """A pooling whose kernel is as long as an axis, whatever that axis's size; None for other poolings.

    It is the mean or the largest entry along the axis, even where its size depends on lengths.
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


def pooled_to_parts(name: str, x: Tensor, output_size: Any) -> Tensor | None:
    """An adaptive pooling to a fixed output size of axes that are dynamic, or no multiple of it; None for others.

    torch.export fixes the parts of the example, and torch.onnx cannot translate a maximum over parts of unequal sizes
    or over three axes.  Here the parts are computed: part i of n goes from floor(i * size / n) to just before
    ceil((i + 1) * size / n), as in PyTorch.
    """
    count = int(name[-2])
    wanted = _each(output_size, count)

    def are_computed(size: Any, parts: Any) -> bool:
        if not isinstance(parts, int) or parts <= 1:
            return False
        return isinstance(size, torch.SymInt) or ("max" in name and size % parts != 0) or count == 3

    places = [place - count for place, parts in enumerate(wanted) if are_computed(x.shape[place - count], parts)]
    if (not places and count < 3) or not x.is_floating_point():
        return None
    for place in places:
        parts, size = wanted[place], x.shape[place]
        part = torch.arange(parts, device=x.device).unsqueeze(-1)
        start = torch.div(part * size, parts, rounding_mode="floor")
        end = torch.div((part + 1) * size + (parts - 1), parts, rounding_mode="floor")
        step = torch.arange(size, device=x.device)
        within = (step >= start) & (step < end)
        x = x.movedim(place, -1)
        if "avg" in name:
            x = x @ (within.to(x.dtype) / (end - start)).T
        else:
            x = x.unsqueeze(-2).masked_fill(~within, -torch.inf).amax(-1)
        x = x.movedim(-1, place)
    whole = [place - count for place, parts in enumerate(wanted) if parts == 1]
    if whole:
        x = x.mean(whole, keepdim=True) if "avg" in name else x.amax(whole, keepdim=True)
    if count == 3 or len(places) + len(whole) == count:
        return x
    pooled: Tensor = getattr(torch.nn.functional, name)(x, output_size)
    return pooled


def windows_of_all(x: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Tensor | None:
    """torch.nn.functional.unfold whose kernel spans one axis, as windows along the other; None for other calls."""
    kernel, dilations, paddings, strides = (_each(given, 2) for given in (kernel_size, dilation, padding, stride))
    whole = [
        isinstance(size, torch.SymInt) and statically_known_true(size == own)
        for size, own in zip(kernel, x.shape[-2:], strict=True)
    ]
    other = 1 if whole[0] else 0
    if x.dim() != 4 or sum(whole) != 1 or dilations != [1, 1] or paddings != [0, 0]:
        return None
    windows = x.unfold(other - 2, kernel[other], strides[other])  # (batch, channels, ..., of the kernel)
    order = (0, 1, 4, 3, 2) if other == 0 else (0, 1, 2, 4, 3)
    return windows.permute(order).flatten(1, 3)


def _each(value: Any, count: int) -> list[Any]:
    """One for each axis."""
    values = list(value) if isinstance(value, (tuple, list)) else [value]
    return values * count if len(values) == 1 else values
