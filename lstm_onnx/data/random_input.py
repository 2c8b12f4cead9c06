"""Makes random inputs for a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import InputError, ModelError, RunError
from ..input_spec import axes as axes_of
from ..input_spec import draw
from ..runtime import Model
from ..runtime.streamable import stream_inputs
from ..symbolic_dims import size_of
from .formats import Record, Records

_TIME_STEPS = 10


def default_sizes(model: Model) -> dict[str, int]:
    """A size for each named axis of the model's inputs: 10 for time axes, 1 for others.

    Axes whose size follows from others, such as ``4*batch``, are left out.
    """
    axes = {dim for info in model.inputs.values() for dim in info.shape if isinstance(dim, str)}
    axes |= set(axes_of(model.metadata.inputs))
    names = dict.fromkeys((axis for axis in axes if axis.isidentifier()), 1)
    return {
        axis: _TIME_STEPS if axis == "time" or axis.endswith("_time") else 1
        for axis in axes
        if axis in names or size_of(axis, names) is None
    }


def random_record(model: Model, sizes: Mapping[str, int], seed: int = 0) -> Records:
    """One record of random inputs, without those that `Model.run` fills in: states, a bare LSTM's lengths, and `end`.

    Args:
        model: the model.  Its metadata may have an input's range; inputs without one are standard normal.
        sizes: the size of each named axis; see `default_sizes`.
        seed: the seed of the random numbers.

    Raises:
        InputError: an input is not floating-point and has no known range, or is too large.
    """
    rng = np.random.default_rng(seed)
    specs = [spec for spec in model.metadata.inputs if spec.name not in model.states]
    record: Record = draw(specs, sizes, rng)
    filled_in = {*record, "lengths"} if model.spec is not None else set(record)
    for name, info in stream_inputs(model).items():
        if name in filled_in:
            continue
        if info.dtype is None or not np.issubdtype(info.dtype, np.floating):
            raise InputError(f"random input is floating-point, but {info} is not; pass DATA")
        shape = [size_of(dim, sizes) if isinstance(dim, str) else dim or 1 for dim in info.shape]
        try:
            record[name] = rng.standard_normal([size or 0 for size in shape]).astype(info.dtype)
        except (ValueError, OverflowError) as error:
            raise InputError(f"random input cannot be made for {info}: {error}; pass DATA") from error
    return Records(format="random", many=False, rows=iter([record]), typed=True, count=1)


def run_on_drawn(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs for random inputs, whose sizes the file may not accept although its metadata does not say so.

    Raises:
        InputError: see `Model.run`.
        ModelError: ONNX Runtime failed.
    """
    try:
        results: dict[str, np.ndarray] = model.run(feeds)
    except RunError as error:
        sizes = ", ".join(f"{name} {np.shape(array)}" for name, array in feeds.items())
        raise ModelError(
            f"cannot be run on random inputs, {sizes} ({error.ort_message or error.message})",
            path=model.path,
            hint="it may accept only certain sizes without saying so; pass inputs: --data, or inputs= in Python",
        ) from error
    return results
