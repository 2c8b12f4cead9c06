"""Converts records of a data file to inputs of a model: casts them to its dtypes and adds a batch axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from ..runtime.counts import Count
from ..runtime.tensor_info import ValueInfo, axis_sizes
from .formats import Record

_FIRST_ROUNDED = 2**53
"""From here on a float64 may stand for several integers."""
Inputs = Mapping[str, ValueInfo]


def cast_inputs(inputs: Inputs, record: Record, *, typed: bool) -> tuple[Record, set[str]]:
    """Cast `record` to the dtypes of `inputs`; return it and notes for the user.

    Args:
        inputs: a model's inputs, by name.
        record: arrays by input name; names that are not in `inputs` are kept for a later check.
        typed: whether the file has dtypes, so that a narrowing cast is reported.

    Raises:
        InputError: an array has values that the input's dtype cannot represent.
    """
    feeds: Record = {}
    notes: set[str] = set()
    for name, array in record.items():
        info = inputs.get(name)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            hidden = "where PyTorch's LSTM gives NaN, ONNX Runtime's may give numbers"
            notes.add(f"{name} contains NaN or infinity; {hidden}")
        if info is None or info.dtype is None or array.dtype == info.dtype:
            feeds[name] = array
            continue
        if info.dtype == object:
            raise InputError(f"the model takes strings as {name}, but a data file has numbers; run it from Python")
        with np.errstate(all="ignore"):
            feeds[name] = array.astype(info.dtype)
            rounded = feeds[name].astype(array.dtype) != array
            if array.dtype.kind == "f":  # such as from a .csv, whose integers are read as floats
                rounded &= (np.floor(array) == array) & (np.abs(array) <= _FIRST_ROUNDED)
        if not np.issubdtype(info.dtype, np.floating) and not np.array_equal(array, feeds[name]):
            first = array[array != feeds[name]][0]
            raise InputError(f"{name} has values that the model's {info.dtype} cannot represent, such as {first}")
        if array.dtype == np.float64 and info.dtype.kind in "iu" and (np.abs(array) >= _FIRST_ROUNDED).any():
            raise InputError(
                f"{name} has integers of 2**53 or more that were read as floats, which may have rounded them",
                hint=f"write them as {info.dtype} alone, in a .npy or .parquet",
            )
        if np.isinf(feeds[name]).any() and not np.isinf(array).any():
            raise InputError(f"{name} has values that are too large for the model's {info.dtype}")
        if typed and np.issubdtype(array.dtype, np.floating):
            notes.add(f"{name} is cast from {array.dtype} to {info.dtype}")
        if rounded.any():
            notes.add(f"{name} has integers that {info.dtype} rounds, such as times in seconds")
    return feeds, notes


def arrange_table(inputs: Inputs, record: Record) -> Record:
    """Rearrange a table, ``{name: (time, features)}``, to the axes of one sequence of its input.

    An input with a batch axis and one other dynamic axis takes one number per time step; an input whose last axis is
    "time" has its features before it.

    Raises:
        InputError: the input takes one number per time step, but the table has several columns; or both axes of the
            input are dynamic, and their names do not say which is time.
    """
    (name, array), *others = record.items()
    info = inputs.get(name)
    if others or info is None or array.ndim != 2:
        return record
    batch = _batch_axis(info)
    axes = [dim for axis, dim in enumerate(info.shape) if axis != batch]
    if batch is None:
        if len(axes) == 2 and axes[0] != "time" and not any(isinstance(dim, int) for dim in axes):
            raise InputError(
                f"a table's rows are time steps, but it is not known which axis of {info} is time",
                hint="pass an array with its axes, such as .npy",
                name=name,
            )
        return record
    if len(axes) == 1 and not isinstance(axes[0], int):
        if array.shape[1] != 1:
            raise InputError(
                f"the table has {array.shape[1]} columns, but the model takes one number per time step: {info}"
            )
        return {name: array[:, 0]}
    return {name: array.T} if len(axes) == 2 and axes[1] == "time" else record


def _batch_axis(info: ValueInfo) -> int | None:
    """The batch axis, which files from other tools may name "batch_size"."""
    names = [dim.lower() if isinstance(dim, str) and dim.isidentifier() else "" for dim in info.shape]
    axes = [axis for axis, name in enumerate(names) if name.startswith("batch")]
    return axes[0] if len(axes) == 1 else None


def is_single_sequence(inputs: Inputs, feeds: Record) -> bool:
    """Whether all of `feeds` lack the batch axis."""
    infos = [inputs.get(name) for name in feeds]
    return all(
        info is not None and _batch_axis(info) is not None and array.ndim == len(info.shape) - 1
        for info, array in zip(infos, feeds.values(), strict=True)
    )


def add_batch_axis(inputs: Inputs, feeds: Record) -> Record:
    """`feeds` with a batch axis of size 1 if they are a single sequence; unchanged otherwise."""
    if not is_single_sequence(inputs, feeds):
        return feeds
    axes = {name: _batch_axis(inputs[name]) for name in feeds}
    return {name: np.expand_dims(array, axis) for name, array in feeds.items() if (axis := axes[name]) is not None}


def fill_in_lengths(inputs: Inputs, counts: Mapping[str, Count], feeds: Record) -> Record:
    """`feeds` of one sequence, as a batch of 1, with missing lengths added: without padding, a sequence is complete."""
    sizes = axis_sizes(inputs, feeds)
    absent = {name: sizes[count.axis] for name, count in counts.items() if name not in feeds and count.axis in sizes}
    filled = {
        name: np.full(1, size, inputs[name].dtype)
        for name, size in absent.items()
        if len(inputs[name].shape) == 1 and _batch_axis(inputs[name]) == 0
    }
    return {**feeds, **filled}


def remove_batch_axis(outputs: Mapping[str, ValueInfo], record: Record) -> Record:
    """`record`, the outputs for a batch of one, with the batch axis removed from those that have it."""
    axes = {name: _batch_axis(outputs[name]) for name in record}
    return {
        name: array if (axis := axes[name]) is None or array.shape[axis] != 1 else array.squeeze(axis)
        for name, array in record.items()
    }
