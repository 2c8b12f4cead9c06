"""What absent states start from: the numbers that the file keeps for them, or zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError, ModelError
from .symbolic_dims import names_in, size_of
from .tensor_info import ValueInfo, checked, to_numpy, zeros

Initial = Mapping[str, "np.ndarray[Any, Any]"]


def fitting_initial(initial: Initial, inputs: Mapping[str, ValueInfo]) -> dict[str, np.ndarray]:
    """The initial states of a file's metadata in the dtypes of its graph, to which it may have been converted since.

    Raises:
        ModelError: one is of no input, of another rank or fixed size than its input, or of a dtype that is not
            the input's and not another float.
    """
    fitting: dict[str, np.ndarray] = {}
    for name, array in initial.items():
        info = inputs.get(name)
        if info is None:
            raise ModelError(f"the metadata starts the state {name!r}, which is not an input; export the model again")
        sizes = zip(array.shape, info.shape, strict=False)
        fits = array.ndim == len(info.shape) and all(not isinstance(dim, int) or size == dim for size, dim in sizes)
        floats = array.dtype.kind == "f" and info.dtype is not None and info.dtype.kind == "f"
        if not fits or not (floats or array.dtype == info.dtype) or array.size == 0:
            raise ModelError(
                f"the metadata starts the state {info} from {array.dtype} {array.shape}, which does not fit; "
                "export the model again"
            )
        with np.errstate(over="ignore"):
            fitting[name] = array.astype(info.dtype, copy=False)
    return fitting


def start(info: ValueInfo, sizes: Mapping[str, int], initial: np.ndarray | None) -> np.ndarray | None:
    """What an absent state starts from.

    Args:
        info: the state input.
        sizes: the sizes of named axes, as far as they are known.
        initial: what the file starts it from; one entry along an open axis serves every size.
            None is for zeros.

    Returns:
        An array of its own; None where the size of one of its axes is not known.

    Raises:
        InputError: `initial` holds more entries along an open axis than one, and not as many as needed.
    """
    if initial is None:
        return zeros(info, sizes)
    shape = []
    for own, dim in zip(initial.shape, info.shape, strict=True):
        size = size_of(dim, sizes) if isinstance(dim, str) else dim
        if size is None and own == 1:
            return None
        if size not in (None, own) and own != 1:
            raise InputError(
                f"the file starts {info.name} from numbers for {dim} = {own}, and {dim} is {size} here; "
                f"pass the state {info}"
            )
        shape.append(size or own)
    return np.array(np.broadcast_to(initial, shape))


def stream_start(info: ValueInfo, batch: int, initial: np.ndarray | None) -> np.ndarray:
    """What a state of a stream of `batch` sequences starts from.

    Its batch is its one open axis, whatever models from elsewhere call it or where it has no name; of
    several it is the one named "batch", and the others are as long as `initial` is.  An axis such as
    ``4*batch`` follows from it.

    Raises:
        InputError: it has another open axis whose size nothing tells, or `initial` is for another batch.
    """
    open_axes = [axis for axis, dim in enumerate(info.shape) if not isinstance(dim, int)]
    shape: list[int | str | None] = list(info.shape)
    batches = [axis for axis in open_axes if size_of(str(info.shape[axis]), {"batch": batch}) is not None]
    if not batches and len(open_axes) == 1 and len(names_in(str(info.shape[open_axes[0]]))) <= 1:
        batches = open_axes
        shape[open_axes[0]] = "batch"  # also where it has no name
    if initial is not None:
        for axis in set(open_axes) - set(batches):
            shape[axis] = initial.shape[axis]
    state = start(ValueInfo(info.name, info.dtype, tuple(shape)), {"batch": batch}, initial)
    if state is None:
        raise InputError(f"the state {info} cannot start as zeros: one axis of it may be open, the batch")
    return state


def fitting_states(
    infos: Mapping[str, ValueInfo], values: Any, shapes: Mapping[str, tuple[int, ...]], owner: str
) -> dict[str, np.ndarray]:
    """`values`, which a caller wants as the states, once all of them are known to fit; `owner` is whose they are.

    Raises:
        InputError: they are no names to arrays, one is missing or unknown, or has another dtype or shape.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"state must map {', '.join(infos)} to arrays; it is a {type(values).__name__}")
    arrays = {name: to_numpy(value, infos.get(name), name)[0] for name, value in values.items()}
    fitting = checked(infos, arrays)
    for name, array in fitting.items():
        if array.shape != shapes[name]:
            raise InputError(f"{name} has shape {array.shape}; {owner} is {shapes[name]}")
    return fitting
