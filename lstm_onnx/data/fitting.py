"""Records of a data file as a model's inputs: numbers of its dtypes, and whether they lack the batch axis."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lstm_onnx.errors import InputError
from lstm_onnx.runtime.tensor_info import ValueInfo

from .formats import Record

Inputs = Mapping[str, ValueInfo]


def cast(inputs: Inputs, record: Record, *, typed: bool) -> tuple[Record, set[str]]:
    """`record` in the dtypes of `inputs`, and what should be said of it.

    Args:
        inputs: a model's, by name.
        record: arrays by input name; names that are no input are left to whoever checks the names.
        typed: whether the record's own dtypes were meant, so that a narrower one is to be said.

    Raises:
        InputError: an array holds numbers that the input's dtype cannot.
    """
    feeds: Record = {}
    remarks: set[str] = set()
    for name, array in record.items():
        info = inputs.get(name)
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            remarks.add(f"{name} holds NaN or infinity, which ONNX Runtime's LSTM may not carry on as PyTorch's does")
        if info is None or info.dtype is None or array.dtype == info.dtype:
            feeds[name] = array
            continue
        if info.dtype == object:
            raise InputError(f"{name} is text to the model, and a data file holds numbers; run it in Python")
        with np.errstate(all="ignore"):
            feeds[name] = array.astype(info.dtype)
        if not np.issubdtype(info.dtype, np.floating) and not np.array_equal(array, feeds[name]):
            raise InputError(f"{name} holds numbers that {info.dtype}, which the model takes, cannot hold")
        if np.isinf(feeds[name]).any() and not np.isinf(array).any():
            raise InputError(f"{name} holds numbers too large for {info.dtype}, which the model takes")
        if typed and np.issubdtype(array.dtype, np.floating):
            remarks.add(f"{name} is {array.dtype} and is run as {info.dtype}")
    return feeds, remarks


def is_one_sequence(inputs: Inputs, feeds: Record) -> bool:
    """Whether all that is given lacks the batch axis, as `Model.map` takes it."""
    infos = [inputs.get(name) for name in feeds]
    return all(
        info is not None and "batch" in info.shape and array.ndim == len(info.shape) - 1
        for info, array in zip(infos, feeds.values(), strict=True)
    )


def batched(inputs: Inputs, feeds: Record) -> Record:
    """One sequence with a batch axis of 1; what has its batch axis stays as it is."""
    if not is_one_sequence(inputs, feeds):
        return feeds
    return {name: np.expand_dims(array, inputs[name].shape.index("batch")) for name, array in feeds.items()}
