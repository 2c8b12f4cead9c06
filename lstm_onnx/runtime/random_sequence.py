"""Makes random sequences for a streaming model, and random values of its own states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..input_spec import draw
from ..symbolic_dims import ANY_SIZE, clamped, is_expression, size_of
from .batch_axes import batch_name, state_batch_axis

if TYPE_CHECKING:
    from .model import Model

Arrays = dict[str, np.ndarray]

_BATCH = 2
_OTHER = 5
"""The size of dynamic axes that are neither batch nor time."""


def batch_of(model: Model, feeds: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]) -> int:
    """The number of sequences in random inputs; from the states if the batch has a different name in each input."""
    batch = batch_name(model)
    for name, array in feeds.items():
        shape = model.inputs[name].shape
        if batch is not None and batch in shape:
            return int(array.shape[shape.index(batch)])
    axes = {name: state_batch_axis(model.inputs[name]) for name in states}
    return next((states[name].shape[axis] for name, axis in axes.items() if axis is not None), 1)


def random_sequence(
    model: Model, time: Mapping[str, int], steps: int, rng: np.random.Generator
) -> tuple[Arrays, Arrays]:
    """Random inputs with this number of steps, and random values of the model's own states.

    Raises:
        InputError: an input does not hold numbers.
    """
    names = {dim for name, axis in time.items() if isinstance(dim := model.inputs[name].shape[axis], str)}
    sizes: dict[str, int] = {}
    infos = dict(model.inputs.items())
    state_dims = {dim for name in model.states for dim in infos[name].shape if isinstance(dim, str)}
    named = [dim for info in infos.values() for dim in {*info.shape} if isinstance(dim, str)]
    # As in tf2onnx's files, each input has its own name for it.
    apart = len(set(named)) == len(named) and 0 not in time.values()
    first = {info.shape[0] for name, info in infos.items() if info.shape and (name in time or apart)}
    for info in infos.values():
        for dim in info.shape:
            if isinstance(dim, str) and not is_expression(dim):
                batch = dim == "batch" or dim in state_dims or dim in first
                wanted = steps if dim in names else _BATCH if batch else _OTHER
                sizes[dim] = clamped(wanted, model.metadata.axis_limits.get(dim, ANY_SIZE))
    feeds = draw([spec for spec in model.metadata.inputs if spec.name not in model.states], sizes, rng)
    states: Arrays = {}
    for name, info in infos.items():
        if name in feeds:
            continue
        shape = [(size_of(dim, sizes) if isinstance(dim, str) else dim) or _BATCH for dim in info.shape]
        if name in time:
            shape[time[name]] = steps
        if info.dtype is None or info.dtype.kind not in "fiub":
            raise InputError(f"no random sequence can be made for {info}", name=name)
        values = rng.standard_normal(shape) if info.dtype.kind == "f" else rng.integers(0, 2, shape)
        if name in model.states:
            states[name] = np.asarray(np.tanh(values), info.dtype)
        else:
            feeds[name] = np.asarray(values, info.dtype)
    return feeds, states
