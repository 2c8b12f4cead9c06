"""Analyses operators that copy, join or cut tensors: what they copy, the axis joined, the bounds of slices, entries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..aten import argument, aten, aten_operators
from .program import Leaf, Node

_COPIES = aten_operators("clone contiguous detach detach_ alias lift_fresh_copy")
CONVERSIONS = aten_operators("to.dtype to.dtype_layout to.device to.other type_as _to_copy")
_DROPOUTS = aten_operators("dropout feature_dropout alpha_dropout feature_alpha_dropout")


def value_of(node: Any) -> Any:
    """What the tracer knows of a node's result."""
    return node.meta.get("val") if isinstance(node, torch.fx.Node) else None


def _same_form(one: Any, two: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(two, Tensor) or one.dtype != two.dtype:
        return False
    return tuple(map(str, one.shape)) == tuple(map(str, two.shape))


def unchanged(item: torch.fx.Node, args: Any, kwargs: Any, value: Any) -> Any:
    """The argument that an operator only copies; None for others."""
    target: Any = item.target
    if target in _COPIES and not any(isinstance(arg, Node) for arg in args[1:]):
        return args[0]
    if target in _DROPOUTS and not kwargs and len(args) > 2 and (args[1] == 0 or args[2] is False):
        return args[0]
    if target is aten.copy.default and _same_form(value_of(item.args[1]), value):
        return args[1]
    if target in CONVERSIONS and isinstance(args[0], (Node, Leaf)) and _same_form(value_of(item.args[0]), value):
        return args[0]
    return None


_LARGEST = 2**63 - 1
_CATS = aten_operators("cat concat concatenate")
_NEW_AXES: dict[Any, dict[int, tuple[int, ...]]] = {
    aten.hstack.default: {0: (0,)},
    aten.vstack.default: {0: (0, 0), 1: (0,)},
    aten.row_stack.default: {0: (0, 0), 1: (0,)},
    aten.dstack.default: {0: (0, 0, 0), 1: (0, 2), 2: (2,)},
    aten.column_stack.default: {0: (0, 1), 1: (1,)},
}
"""By a tensor's rank: the axes of size 1 that are inserted, one after the other, before it is joined."""


def concatenation(item: torch.fx.Node) -> tuple[int, list[tuple[int, ...]]] | None:
    """The axis along which an operator joins a list of tensors, and the new axes that each gets before; else None."""
    target: Any = item.target
    listed = item.args[0] if item.args else None
    if not isinstance(listed, (list, tuple)) or not all(isinstance(value_of(part), Tensor) for part in listed):
        return None
    ranks = [value_of(part).dim() for part in listed]
    if target in _CATS:
        dim: Any = argument(item.args, 1, item.kwargs.get("dim", 0))
        return dim % max(ranks), [() for _ in ranks]
    if target not in _NEW_AXES:
        return None
    axis = {aten.hstack.default: int(ranks[0] > 1), aten.dstack.default: 2, aten.column_stack.default: 1}
    return axis.get(target, 0), [_NEW_AXES[target].get(rank, ()) for rank in ranks]


def is_empty(part: Any, dim: int, value: Tensor) -> bool:
    """Whether what is joined has no entries and changes neither the result's shape nor its dtype."""
    if not isinstance(part, Node) or part.dtype != value.dtype or part.shape is None:
        return False
    return bool(part.shape == (0,) or (len(part.shape) == value.dim() and part.shape[dim] == 0))


def bounds(start: Any, end: Any, size: Any) -> tuple[Any, Any]:
    """The bounds of a slice, as numbers from 0 to the size where that is fixed."""
    end = _LARGEST if end is None else end
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        start, end = (min(max(at + size if at < 0 else at, 0), size) for at in (start, end))
    return start, end


def is_whole(start: Any, end: Any, step: int, size: Any) -> bool:
    """Whether a slice with these bounds takes the whole axis."""
    return bool(start == 0 and step == 1 and end == (size if isinstance(size, int) else _LARGEST))


def is_one(start: Any, end: Any, size: Any) -> bool:
    """Whether a slice is known to take one entry."""
    return all(isinstance(at, int) for at in (start, end, size)) and end - start == 1


def entry_of(source: Any, dim: int, index: Any, value: Any) -> tuple[Any, Node | None]:
    """Where an entry is read: in a tensor before others were written, or as the value last written there.

    So after ``y[:, t] = h``, that is what ``y[:, t]`` gives, and all steps read ``y[:, t + 1]`` from the same tensor.
    """
    while isinstance(source, Node) and source.target is aten.select_scatter.default and type(index) is int:
        base, row, *place = source.args
        if place == [dim, index]:
            return source, row if isinstance(row, Node) and row.dtype == value.dtype else None
        if place[0] != dim or type(place[1]) is not int or (place[1] < 0) != (index < 0):
            break  # it may be the same entry
        source = base
    return source, None
