"""Helpers in a file of their own, as projects have them: a trace has to follow what Python's functions do here."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def up_to(lengths: Tensor, longest: int) -> Tensor:
    """Where steps are valid, ``(batch, longest)``."""
    return torch.arange(longest).expand(len(lengths), longest) < lengths.unsqueeze(1)


def up_to_the_longest(lengths: Tensor) -> Tensor:
    """As `up_to`, with a 0-d tensor for the longest."""
    return torch.arange(max(lengths))[None, :] < lengths[:, None]


def of_a_list(lengths: Any) -> Tensor:
    """As `up_to`, of a tensor or a list."""
    if not isinstance(lengths, list):
        lengths = lengths.tolist()
    rows, longest = int(len(lengths)), int(max(lengths))  # noqa: RUF046
    steps = torch.arange(0, longest, dtype=torch.int64)
    return steps.unsqueeze(0).expand(rows, longest) < steps.new(lengths).unsqueeze(-1)


def written_row_by_row(lengths: Tensor, longest: int) -> Tensor:
    """As `up_to`, by a loop over the rows."""
    mask = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, :length] = True
    return mask


class Masks:
    """No nn.Module."""

    def up_to(self, lengths: Tensor, longest: int) -> Tensor:
        return torch.arange(longest).expand(len(lengths), longest) < lengths.unsqueeze(1)
