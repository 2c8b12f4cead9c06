"""The states of a stream: their initial values, values set by the caller, and values after each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, RunError
from ..symbolic_dims import size_of
from .batch_axes import BATCH, dynamic_axes, with_named_batch
from .conversion import to_arrays
from .initial_states import initial_state
from .loaded_model import LoadedModel
from .tensor_info import ValueInfo, validated_feeds


def stream_start(model: LoadedModel, batch: int) -> dict[str, np.ndarray]:
    """The initial states of a stream of `batch` sequences (InputError: see `stream_initial_state`)."""
    initial = model.metadata.initial
    return {name: stream_initial_state(model.inputs[name], batch, initial.get(name)) for name in model.states}


def stream_initial_state(info: ValueInfo, batch: int, initial: np.ndarray | None) -> np.ndarray:
    """The initial value of a state for a stream of `batch` sequences.

    Its batch is the axis named "batch", or else its only dynamic axis, whatever its name.  Other dynamic axes have
    the sizes of `initial`; the size of an axis such as ``4*batch`` follows from the batch.

    Raises:
        InputError: it has another dynamic axis whose size is not known, or `initial` is for another batch.
    """
    named = with_named_batch(info)
    shape = list(named.shape)
    if initial is not None:
        for axis in dynamic_axes(named):
            if size_of(str(shape[axis]), {BATCH: batch}) is None:
                shape[axis] = initial.shape[axis]
    state = initial_state(ValueInfo(info.name, info.dtype, tuple(shape)), {BATCH: batch}, initial)
    if state is None:
        raise InputError(
            f"the state {info} cannot start as zeros: only one of its axes may be dynamic, the batch", name=info.name
        )
    return state


def require_like_state(model: LoadedModel, name: str, after: np.ndarray, before: np.ndarray) -> None:
    """Refuse a next value of a state whose shape or dtype differs from the one before (RunError)."""
    if after.shape != before.shape or after.dtype != before.dtype:
        raise RunError(
            f"its output {model.states[name]} is {after.dtype} {after.shape}, but the state {name} that it feeds is "
            f"{before.dtype} {before.shape}",
            path=model.path,
            name=model.states[name],
        )


def validated_states(
    infos: Mapping[str, ValueInfo], values: Any, shapes: Mapping[str, tuple[int, ...]], owner: str
) -> dict[str, np.ndarray]:
    """The validated `values` to which a caller sets the states.

    Args:
        infos: of the states.
        values: passed by the caller.
        shapes: the required shapes.
        owner: the owner of the states, for messages.

    Raises:
        InputError: they do not map names to arrays, one is missing or unknown, or has another dtype or shape.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"state is a {type(values).__name__}", hint=f"it must map {', '.join(infos)} to arrays")
    arrays, _ = to_arrays(values, infos)
    validated = validated_feeds(infos, arrays)
    for name, array in validated.items():
        if array.shape != shapes[name]:
            raise InputError(f"{name} has shape {array.shape}", hint=f"{owner} is {shapes[name]}", name=name)
    return validated
