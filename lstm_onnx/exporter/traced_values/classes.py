"""One-hot rows of as many classes as an axis is long."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def one_hot(numbers: Tensor, classes: Any) -> Tensor:
    """As torch.nn.functional.one_hot, whose number of classes may be a symbol."""
    return (numbers.unsqueeze(-1) == torch.arange(classes, device=numbers.device)).to(torch.int64)
