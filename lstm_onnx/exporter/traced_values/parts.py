"""Slices, chunks and splits of an axis that is not fixed, with sizes that a graph computes.

In a trace, torch decides whether ``x[:, :50]`` cuts anything off, so the graph would be right on only one side of 50;
and it has no translation of ``x.chunk(4)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ...errors import ExportError
from ..user_code import user_line
from .cut_sequences import SplitSequences
from .each_number import only_each

_smaller: Any = torch.sym_min
_COUNTS: dict[str, tuple[Any, ...]] = {"chunk": (int,), "split": (int, torch.SymInt), "tensor_split": (int,)}
"""The types that the number of parts, or the size of each part, may have."""
_MOST_EQUAL = 16
"""The most parts that are looked for where no size is known; heads of an attention, for example."""


def with_clipped_slices(tensor: Tensor, index: Any) -> Any:
    """An index in which the bounds that may lie past the end of an axis are clipped to it.

    None if nothing changes.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    axes = _sliced_axes(tensor, items)
    clipped = [
        item if axis is None else _clipped(item, tensor.shape[axis]) for item, axis in zip(items, axes, strict=True)
    ]
    changed = any(new is not item for new, item in zip(clipped, items, strict=True))
    return tuple(clipped) if changed else None


def _sliced_axes(tensor: Tensor, items: list[Any]) -> list[int | None]:
    """The axis of each slice in an index; None for what is not a slice, and for all parts if the axes are not known."""
    nothing: list[int | None] = [None] * len(items)
    used = [_axes_used(item) for item in items]
    if not any(isinstance(item, slice) for item in items) or None in used:
        return nothing
    counts = [count for count in used if count is not None]
    axis, found = 0, nothing.copy()
    for number, (item, count) in enumerate(zip(items, counts, strict=True)):
        if isinstance(item, slice) and axis < tensor.dim():
            found[number] = axis
        axis += tensor.dim() - sum(counts) if item is Ellipsis else count
    return found


def _axes_used(item: Any) -> int | None:
    """How many axes a part of an index takes; None where that is not known."""
    if item is None or item is Ellipsis or isinstance(item, bool):
        return 0
    if isinstance(item, Tensor):
        return item.dim() if item.dtype in (torch.bool, torch.uint8) else 1
    return 1 if isinstance(item, (int, torch.SymInt, slice)) else None


def _clipped(item: slice, size: Any) -> slice:
    if not isinstance(size, torch.SymInt):
        return item
    start, stop = item.start, item.stop
    if type(stop) is int and stop > 0 and not statically_known_true(size >= stop):
        stop = _smaller(stop, size)
    if type(start) is int and start < 0 and not statically_known_true(size >= -start):
        start = size - _smaller(-start, size)
    return item if start is item.start and stop is item.stop else slice(start, stop, item.step)


def _traced(size: Any) -> int | None:
    """The size at which the module is traced; None where it depends on the numbers in a tensor."""
    if isinstance(size, torch.SymInt):
        return int(size.node.hint) if size.node.has_hint() else None
    return int(size)


@dataclass(frozen=True)
class Parts:
    """The parts of a tensor, and the sizes of its axis at which there are this many; `largest` may be None."""

    tensors: tuple[Tensor, ...]
    size: Any
    least: int = 1
    largest: int | None = None


def parts_of(name: str, tensor: Any, how: Any, dim: Any = 0) -> Parts | None:
    """The result of ``chunk``, ``split`` or ``tensor_split`` of an axis that is not fixed; None for other calls.

    Also None for a list of sizes or of indices, unless they are the sizes of the first axis and traced.

    Raises:
        ExportError: the number of parts depends on the numbers in a tensor.
    """
    if not isinstance(tensor, Tensor) or type(dim) is not int or not -tensor.dim() <= dim < tensor.dim():
        return None
    size: Any = tensor.shape[dim]
    if name == "split" and dim in (0, -tensor.dim()) and (lengths := only_each(how)) is not None:
        return Parts(SplitSequences(tensor, lengths.tensor), size)
    if not isinstance(size, torch.SymInt) or type(how) not in _COUNTS[name]:
        return None
    traced = _traced(size)
    if traced is None:
        return _equal_parts(name, tensor, how, dim)
    if how < 1:
        return None
    if name == "tensor_split":
        starts = [part * (size // how) + (_smaller(part, size % how) if part else 0) for part in range(how)]
        return Parts(_between(tensor, dim, starts), size)
    each: Any = (size + how - 1) // how if name == "chunk" else how
    each_traced = _traced(each)
    if each_traced is None:
        return None
    count = -(-traced // each_traced)
    if not ((count - 1) * each < size <= count * each):  # never; but torch records at which sizes the test holds
        return None
    parts = _between(tensor, dim, [part * each for part in range(count)])
    if isinstance(each, int):
        return Parts(parts, size, (count - 1) * each + 1, count * each)
    return Parts(parts, size)


def _equal_parts(name: str, tensor: Tensor, how: Any, dim: int) -> Parts:
    """The parts of an axis as long as the numbers in a tensor say, such as a batch that was folded with such an axis.

    torch knows no size of it, but may know that it is twice the size of a part.
    """
    size: Any = tensor.shape[dim]
    counts = (count for count in range(1, _MOST_EQUAL + 1) if statically_known_true(size == count * how))
    count = next(counts, None) if name == "split" else None
    if count is None:
        raise ExportError(
            f"at {user_line()}: the number of parts of {name} depends on the numbers in a tensor, such as on the "
            "longest length, and in a graph it is fixed; use reshape, or pad to the whole axis with total_length"
        )
    return Parts(_between(tensor, dim, [part * how for part in range(count)]), size)


def _between(tensor: Tensor, dim: int, starts: list[Any]) -> tuple[Tensor, ...]:
    """A tensor's parts along an axis, each from its start to the next one's."""
    before = (slice(None),) * (dim % tensor.dim())
    ends = (*starts[1:], tensor.shape[dim])
    return tuple(tensor[(*before, slice(start, end))] for start, end in zip(starts, ends, strict=True))
