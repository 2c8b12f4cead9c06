"""Inputs that a module runs on, from nothing but their description."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ...input_spec import InputSpec, sizes_of
from .arguments import Arguments, drawn
from .attribute_states import Snapshot
from .clone import cloned
from .functional import called, quiet

_BATCH = 3
_TIMES = (7, 40, 160)
"""Steps to try: some modules need as many as their kernels are long."""
_MOST_CANDIDATES = 16


def fitting_arguments(
    module: nn.Module,
    specs: Sequence[InputSpec],
    *,
    seed: int = 0,
    limits: Mapping[str, tuple[int, int | None]] = MappingProxyType({}),
) -> Arguments:
    """Draw arguments on which the module runs, on its own device.

    A module that keeps states in attributes runs at the batch that they have; one that wants its
    lengths sorted, on sorted ones; one with long kernels, on many steps.  No axis is outside of its
    least and largest size in `limits`, where it has any.

    Raises:
        ExportError: it runs on none of those tried; the message is of the first try.
        ConfigError: the inputs cannot be drawn.
    """
    device = next((tensor.device for tensor in itertools.chain(module.parameters(), module.buffers())), None)
    problem: ExportError | None = None
    for time, batch, ordered in itertools.product(_TIMES, [_BATCH, *_held_sizes(module)], (False, True)):
        sizes = {
            axis: _within(size, limits.get(axis, (1, None))) for axis, size in sizes_of(specs, batch, time).items()
        }
        found = drawn(module, specs, sizes, seed=seed).bounded(limits)
        tensors = {name: tensor.to(device or "cpu") for name, tensor in found.tensors.items()}
        found = replace(found, tensors=_ordered(tensors, specs) if ordered else tensors)
        args, kwargs = found.call(found.tensors)
        copy = cloned(module)
        try:
            with quiet(torch.get_default_dtype()):
                called(lambda copy=copy, args=args, kwargs=kwargs: copy(*args, **kwargs))
        except ExportError as error:
            problem = problem or error
        else:
            return found
    assert problem is not None  # noqa: S101 - something was tried
    raise problem


def _within(size: int, limits: tuple[int, int | None]) -> int:
    least, largest = limits
    return max(least, size if largest is None else min(size, largest))


def _held_sizes(module: nn.Module) -> list[int]:
    """Sizes that tensors in attributes and buffers have: one of them is the batch that the module is at."""
    held = [leaf for value, _ in Snapshot(module).held.values() for leaf in pytree.tree_leaves(value)]
    sizes = {size for leaf in held if isinstance(leaf, Tensor) for size in leaf.shape} - {0, _BATCH}
    return sorted(sizes)[:_MOST_CANDIDATES]


def _ordered(tensors: dict[str, Tensor], specs: Sequence[InputSpec]) -> dict[str, Tensor]:
    """Lengths in falling order, as pack_padded_sequence wants them by default."""
    lengths = [spec.name for spec in specs if isinstance(spec.high, str)]
    return {
        name: tensor.sort(descending=True).values if name in lengths else tensor for name, tensor in tensors.items()
    }
