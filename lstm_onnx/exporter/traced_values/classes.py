"""One-hot rows of as many classes as an axis is long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .function_mode import TracingMode


def symbolic_one_hot(mode: TracingMode, _func: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor] | None:
    """torch.nn.functional.one_hot of as many classes as an axis that is not fixed is long, which torch would fix."""
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes")
    return (mode.constants.call(one_hot, (args[0], classes), {}),) if isinstance(classes, torch.SymInt) else None


def one_hot(numbers: Tensor, classes: Any) -> Tensor:
    """As torch.nn.functional.one_hot, whose number of classes may be a symbol."""
    return (numbers.unsqueeze(-1) == torch.arange(classes, device=numbers.device)).to(torch.int64)
