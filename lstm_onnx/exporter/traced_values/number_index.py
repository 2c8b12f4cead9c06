"""Rewrites an index that is a 0-d tensor or its number, as in ``ring[:, self.place] = x``, as a tensor of shape (1,).

torch reads the value of a 0-d tensor, which a trace cannot; by the other it gathers or scatters.  The ends of slices
become numbers of the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .ranges import is_symbolic


def at_number(is_open: Callable[[Tensor], bool], args: tuple[Any, ...]) -> tuple[tuple[Any, ...], int] | None:
    """The arguments of ``tensor[index]`` or ``tensor[index] = value``, the one 0-d index or its number as shape (1,).

    Args:
        is_open: whether a tensor's numbers are unknown while tracing.
        args: the tensor, the index, and the value that is assigned.

    Returns:
        The arguments, and the extra axis that the result has for that index; None where there is no such index, more
        than one, or an index other than an int, a slice, None or an ellipsis.
    """
    tensor, index, *values = args
    items = list(index) if isinstance(index, tuple) else [index]
    places = [place for place, item in enumerate(items) if is_taken(item) or (_is_number(item) and is_open(item))]
    others = [item for place, item in enumerate(items) if place not in places]
    if len(places) != 1 or not all(
        item is None or item is ... or type(item) in (int, slice, torch.SymInt) for item in others
    ):
        return None
    (place,) = places
    left = tensor.dim() - sum(item is not None and item is not ... for item in items)
    axes = [left if item is ... else int(item is None or type(item) is slice) for item in items]
    axis = sum(axes[:place])
    item = items[place]
    number = torch.scalar_tensor(item, dtype=torch.int64, device=tensor.device) if is_taken(item) else item
    items[place] = number.reshape(1)
    behind = sum(axes) + (0 if ... in others else left) - axis
    return (tensor, tuple(items), *(_as_rows(value, behind, tensor.dtype) for value in values)), axis


def _as_rows(value: Any, behind: int, dtype: torch.dtype) -> Any:
    """What is assigned, with the axis of the index; only an index that is no tensor would convert it."""
    if not isinstance(value, Tensor):
        return value
    return (value.unsqueeze(value.dim() - behind) if value.dim() > behind else value).to(dtype)


def rolled(is_open: Callable[[Tensor], bool], tensor: Tensor, shifts: Any, dims: Any = None) -> tuple[Tensor] | None:
    """`torch.roll` by one number that is a tensor or depends on a size, in a tuple; None for other shifts."""
    (shift,) = shifts if isinstance(shifts, (tuple, list)) and len(shifts) == 1 else (shifts,)
    (dim,) = dims if isinstance(dims, (tuple, list)) and len(dims) == 1 else (dims,)
    if not (is_symbolic(shift) or (_is_number(shift) and is_open(shift))) or type(dim) is not int:
        return None
    size = tensor.shape[dim]
    places = (torch.arange(size, device=tensor.device) - shift) % size
    return (tensor.index_select(dim, places),)


def with_number_ends(number: Callable[[Tensor], Any], index: Any) -> Any:
    """An index whose slices end at numbers, such as ``x[i, :int(n)]``, where ``n`` is a tensor with one element.

    Args:
        number: the number of a traced tensor.
        index: of a tensor.
    """
    if type(index) is tuple:
        parts = tuple(with_number_ends(number, item) for item in index)
        return index if all(map(operator.is_, parts, index)) else parts
    if type(index) is not slice:
        return index
    ends = index.start, index.stop, index.step
    numbers = [number(end) if isinstance(end, FakeTensor) and end.dtype in _WHOLE else end for end in ends]
    return index if all(map(operator.is_, numbers, ends)) else slice(*numbers)


def _is_number(item: Any) -> bool:
    return isinstance(item, Tensor) and item.dim() == 0 and item.dtype in _WHOLE


def is_taken(item: Any) -> bool:
    """Whether an item is the number of a traced tensor, such as that of ``item()``."""
    return type(item) is torch.SymInt and bool(free_unbacked_symbols(item))


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
