"""Inputs that many models take."""

from __future__ import annotations

import torch
from torch import Tensor


def tokens(batch: int, time: int, vocabulary: int) -> Tensor:
    """``(batch, time)`` of 1 to `vocabulary` - 1: 0 is padding in most of these models."""
    return torch.randint(1, vocabulary, (batch, time))


def lengths(batch: int, time: int) -> Tensor:
    """``(batch,)``, falling from `time`."""
    return torch.linspace(time, max(1, time // 2), batch).long()


def unsorted_lengths(batch: int, time: int) -> Tensor:
    """``(batch,)`` in another order, one of them `time`."""
    return lengths(batch, time).roll(1)


def padding(lengths: Tensor, time: int) -> Tensor:
    """``(batch, time)``, True after each sequence's end."""
    return torch.arange(time)[None] >= lengths[:, None]
