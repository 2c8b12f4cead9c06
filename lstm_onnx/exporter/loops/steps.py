"""The values of all steps of a loop as one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true


def is_known_equal(one: Any, two: Any) -> bool:
    """Whether two sizes, which may be symbols, are equal at all lengths."""
    return bool(statically_known_true(one == two))


@dataclass(frozen=True)
class Steps:
    """A tensor with an entry for each step along `axis`."""

    tensor: Tensor
    axis: int = 0

    def along(self, axis: int) -> Tensor:
        """The tensor with the steps along another axis."""
        if axis == self.axis:
            return self.tensor
        order = list(range(self.tensor.dim()))
        order.insert(axis, order.pop(self.axis))
        return self.tensor.permute(order)  # movedim does the same, but would have to be decomposed

    def entry(self, index: Any) -> Tensor:
        """The value of one step."""
        return self.tensor.select(self.axis, index)

    def range(self, start: Any, by: int, count: Any) -> Steps:
        """The values of `count` steps from `start` on, `by` apart."""
        tensor = self.tensor
        if by < 0:
            start = start + by * (count - 1)
        whole = abs(by) == 1 and isinstance(start, int) and start == 0
        if not whole or not is_known_equal(tensor.shape[self.axis], count):
            end = start + abs(by) * (count - 1) + 1
            tensor = torch.ops.aten.slice.Tensor(tensor, self.axis, start, end, abs(by))
        return Steps(tensor.flip(self.axis) if by < 0 else tensor, self.axis)

    def unsqueezed(self, axis: int) -> Steps:
        """With an axis of size 1 at `axis` of each step's value."""
        first = self.along(0)
        return Steps(first.unsqueeze(axis + 1), 0)


def interleaved(columns: list[Steps]) -> Steps:
    """The first step of each column, then the second of each, and so on."""
    if len(columns) == 1:
        return columns[0]
    return Steps(torch.stack([column.along(0) for column in columns], 1).flatten(0, 1))
