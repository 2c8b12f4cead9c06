"""The initial values of states that the caller leaves out: those in the file, or zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, ModelError
from ..symbolic_dims import size_of
from .tensor_info import ValueInfo, zeros

Initial = Mapping[str, "np.ndarray[Any, Any]"]


def cast_initial_states(initial: Initial, inputs: Mapping[str, ValueInfo]) -> dict[str, np.ndarray]:
    """The initial states in a file's metadata, in the dtypes of its graph, which may have been converted since.

    Raises:
        ModelError: one belongs to no input, has another rank or fixed size than its input, or a dtype that is
            neither the input's nor another float.
    """
    states: dict[str, np.ndarray] = {}
    for name, array in initial.items():
        info = inputs.get(name)
        if info is None:
            raise ModelError(
                f"the metadata has an initial state for {name!r}, which is not an input",
                hint="export the model again",
                name=name,
            )
        sizes = zip(array.shape, info.shape, strict=False)
        fits = array.ndim == len(info.shape) and all(not isinstance(dim, int) or size == dim for size, dim in sizes)
        floats = array.dtype.kind == "f" and info.dtype is not None and info.dtype.kind == "f"
        if not fits or not (floats or array.dtype == info.dtype) or array.size == 0:
            raise ModelError(
                f"the metadata's initial state for {info} is {array.dtype} {array.shape}, which does not fit",
                hint="export the model again",
                name=name,
            )
        with np.errstate(over="ignore"):
            states[name] = array.astype(info.dtype, copy=False)
    return states


def known_initial_states(
    infos: Mapping[str, ValueInfo], sizes: Mapping[str, int], initial: Initial
) -> dict[str, np.ndarray]:
    """The initial values of missing states, except states of unknown sizes, which are reported as missing.

    Args:
        infos: the state inputs.
        sizes: the sizes of named axes, as far as they are known.
        initial: the file's values.

    Raises:
        InputError: see `initial_state`.
    """
    found = {name: initial_state(info, sizes, initial.get(name)) for name, info in infos.items()}
    return {name: state for name, state in found.items() if state is not None}


def initial_state(info: ValueInfo, sizes: Mapping[str, int], initial: np.ndarray | None) -> np.ndarray | None:
    """The initial value of a missing state.

    Args:
        info: the state input.
        sizes: the sizes of named axes, as far as they are known.
        initial: the file's value for it, which is broadcast along dynamic axes where its size is 1; None for zeros.

    Returns:
        A new array; None where the size of one of its axes is not known.

    Raises:
        InputError: the size of `initial` along a dynamic axis is neither 1 nor the one that is needed.
    """
    if initial is None:
        return zeros(info, sizes)
    shape = []
    for length, dim in zip(initial.shape, info.shape, strict=True):
        size = size_of(dim, sizes) if isinstance(dim, str) else dim
        if size is None and length == 1:
            return None
        if size not in (None, length) and length != 1:
            raise InputError(
                f"the file's initial state for {info.name} has {dim} = {length}, but {dim} is {size} here",
                hint=f"pass the state {info}",
                name=info.name,
            )
        shape.append(size or length)
    return np.array(np.broadcast_to(initial, shape))
