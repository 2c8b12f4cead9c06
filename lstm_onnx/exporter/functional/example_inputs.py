"""Makes random example inputs on which a module runs, from a description of its inputs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import ExportError
from ...input_spec import InputSpec, longest_first, sizes_of
from ...symbolic_dims import ANY_SIZE, Limit, clamped
from ..call.arguments import Arguments, draw_arguments
from ..call.structure import Call
from ..copies.clone import clone_module
from .attribute_states import AttributeSnapshot
from .functional_module import call_forward, inference_context

_BATCH = 3
_TIMES = (7, 12, 40, 160)
"""Numbers of steps to try: some modules need as many as their kernels have, or whole blocks of 4 or 32 steps."""
_MOST_CANDIDATES = 16


def find_example_inputs(
    module: nn.Module,
    specs: Sequence[InputSpec],
    *,
    seed: int = 0,
    limits: Mapping[str, Limit] = MappingProxyType({}),
    call: Call | None = None,
) -> Arguments:
    """Random arguments on which the module runs, on its own device.

    Several batch sizes, numbers of steps and orders of lengths are tried, since a module may keep states
    of one batch size in attributes, require the longest sequences first, or have long kernels; finally, the least size
    of each axis at which a file was found right.

    Args:
        module: a copy of it is run.
        specs: the forward's inputs.
        seed: of the random numbers.
        limits: the least and the largest size of axes by name; None where there is no largest size.
        call: how the inputs are nested; None derives that from their names.

    Raises:
        ExportError: it fails on all that were tried; the message is that of the first failure.
        ConfigError: random inputs cannot be made.
    """
    device = next((tensor.device for tensor in itertools.chain(module.parameters(), module.buffers())), None)
    problem: ExportError | None = None
    sizes_to_try = (*itertools.product(_TIMES, [_BATCH, *_attribute_sizes(module)]), (1, 1))
    for (time, batch), described in itertools.product(sizes_to_try, (specs, *_with_lengths(specs))):
        sizes = sizes_of(described, batch, time)
        sizes = {axis: clamped(size, limits.get(axis, ANY_SIZE)) for axis, size in sizes.items()}
        drawn = draw_arguments(module, described, sizes, seed=seed, call=call).with_limits(limits)
        for tensors in (drawn.tensors, *_longest_first(drawn.tensors, described)):
            found = replace(drawn, tensors={name: tensor.to(device or "cpu") for name, tensor in tensors.items()})
            args, kwargs = found.args_and_kwargs({name: tensor.clone() for name, tensor in found.tensors.items()})
            copy = clone_module(module)
            try:
                with inference_context(torch.get_default_dtype()):
                    call_forward(functools.partial(copy, *args, **kwargs))
            except ExportError as error:
                problem = problem or error
            else:
                return found
    assert problem is not None  # noqa: S101 - something was tried
    raise problem


def _with_lengths(specs: Sequence[InputSpec]) -> Iterator[tuple[InputSpec, ...]]:
    """`specs` in which integer vectors without a range are lengths: from 1 to the size of another input's next axis.

    Otherwise they would be 0 or 1, and a sequence without steps cannot be packed.
    """
    axes: dict[int | str, str] = {}  # the time by the batch
    for spec in specs:
        names = [dim for dim in spec.shape if isinstance(dim, str) and dim.isidentifier()]
        for batch, time in itertools.permutations(names, 2):
            axes.setdefault(batch, time)
    found = tuple(
        replace(spec, low=1, high=axes[spec.shape[0]])
        if spec.low is None and len(spec.shape) == 1 and spec.shape[0] in axes and np.dtype(spec.dtype).kind in "iu"
        else spec
        for spec in specs
    )
    if found != tuple(specs):
        yield found


def _attribute_sizes(module: nn.Module) -> list[int]:
    """The sizes of tensors in attributes and buffers, one of which may be the batch to which the module is fixed."""
    leaves = [leaf for value, *_ in AttributeSnapshot(module).held.values() for leaf in pytree.tree_leaves(value)]
    sizes = {size for leaf in leaves if isinstance(leaf, Tensor) for size in leaf.shape} - {0, _BATCH}
    return sorted(sizes)[:_MOST_CANDIDATES]


def _longest_first(tensors: Mapping[str, Tensor], specs: Sequence[InputSpec]) -> Iterator[dict[str, Tensor]]:
    for ordered in longest_first(specs, {name: tensor.numpy() for name, tensor in tensors.items()}):
        yield {name: torch.from_numpy(array) for name, array in ordered.items()}
