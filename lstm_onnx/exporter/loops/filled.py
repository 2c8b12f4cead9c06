"""Tensors of which each step of a loop fills a row, and which are read when all is done."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from ..aten import aten
from .program import Affine, Carry, Element, Loop, Operator, positions_in
from .steps import Steps, is_known_equal


def buffers_of(
    loop: Loop, outer: Collection[Element], wanted: Collection[int], is_last: Callable[[Element], bool]
) -> set[int]:
    """The positions that fill a row each of a tensor that no step reads.

    Args:
        loop: the loop.
        outer: its values that are used after it.
        wanted: positions of which all steps are used.
        is_last: whether one of `outer` is of the last step.
    """
    return {
        item.index
        for item in loop.body
        if _fills_a_row(item) and not _is_read(loop, item) and item.index not in wanted
        if all(is_last(element) for element in outer if element.position == item.index)
    }


def _fills_a_row(item: Operator) -> bool:
    if item.target is not aten.select_scatter.default or not isinstance(item.args[0], Carry):
        return False
    carry, _, _, index = item.args
    return carry.position == item.index and carry.back == 1 and isinstance(index, Affine) and abs(index.step) == 1


def _is_read(loop: Loop, item: Operator) -> bool:
    others = (item.args[1], *(other.arguments for other in loop.body if other is not item))
    return item.index in positions_in(others)


def filled(module: Any, item: Operator, rows: Steps, count: Any) -> Tensor:
    """The tensor after all steps: the rows in their places, and the rest as before.

    Args:
        module: the `RolledModule` that runs.
        item: the operator that fills.
        rows: of all steps.
        count: the number of steps.
    """
    carry, _, dim, index = item.args
    start = module.number(index.at_first())
    before = module.value(carry.initial[0])
    if index.step < 0:
        start = start - (count - 1)
        rows = rows.range(count - 1, -1, count)
    tensor = rows.along(dim).to(before.dtype)
    if is_known_equal(start, 0) and is_known_equal(before.shape[dim], count):
        return tensor
    end = start + count
    head = aten.slice.Tensor(before, dim, 0, start)
    return torch.cat([head, tensor, aten.slice.Tensor(before, dim, end, before.shape[dim])], dim)
