"""``torch.linspace`` of as many numbers as an axis has steps, of which torch.export takes a fixed count alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .ranges import is_symbolic


def linspace(_mode: Any, _func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """The numbers as PyTorch computes them: from both ends to the middle; None where their count is fixed."""
    named = dict(zip(("start", "end", "steps"), args, strict=False)) | kwargs
    dtype = named.pop("dtype", None) or torch.get_default_dtype()
    device = named.pop("device", None)
    known = named.keys() == {"start", "end", "steps"} and dtype.is_floating_point
    if not known or not is_symbolic(named["steps"]) or any(isinstance(named[end], Tensor) for end in ("start", "end")):
        return None
    start, end = (_double(named[end], device) for end in ("start", "end"))
    steps = named["steps"]
    count = torch.scalar_tensor(steps, dtype=torch.float64, device=device)
    step = ((end - start) / (count - 1).clamp(min=1)).to(dtype)
    number = torch.arange(steps, device=device)
    from_start = number < torch.floor(count / 2).clamp(min=1)  # a single number is the start
    up, down = start + step * number.to(dtype), end - step * (steps - 1 - number).to(dtype)
    return (torch.where(from_start, up, down),)


def _double(number: Any, device: Any) -> Any:
    """An end as PyTorch computes with it, also one that is a size: ``linspace(0, steps - 1, steps)``."""
    return torch.scalar_tensor(number, dtype=torch.float64, device=device) if is_symbolic(number) else float(number)
