"""Reads outputs whose rows are each one step of one sequence: batch and time are one axis: ``view(-1, tokens)``."""

from __future__ import annotations

import numpy as np

from ..errors import InputError, ModelError, RunError
from ..runtime import Model
from ..runtime.tensor_info import ValueInfo
from ..runtime.warm_up import smallest_feeds

_SIZES = (2, 3)
"""Sequences and steps of the trial."""


def outer_axis(model: Model, fed: ValueInfo, output: ValueInfo, axes: tuple[int, int]) -> str | None:
    """Which of batch and time is the outer one in an output's first axis; None if that axis is only the batch.

    The names of axes do not say, and files from other tools have none.  So two sequences of three steps are run, and
    then the first of them alone.

    Args:
        model: the step.
        fed: the input that is fed back; both of its axes are dynamic.
        output: the output from which its next value is made; it has no time axis of its own.
        axes: the batch axis and the time axis of `fed`.

    Raises:
        ModelError: the trial failed, or the rows are neither.
    """
    batch, time = _SIZES
    both = _drawn(fed, axes)
    try:
        rows = _rows(model, fed, output, both, axes)
        if len(rows) == batch:
            return None
        alone = _rows(model, fed, output, np.take(both, [0], axis=axes[0]), axes)
    except (InputError, RunError) as error:
        raise ModelError(f"cannot generate: a trial failed: {error.reason}", path=model.path) from error
    if len(rows) == batch * time and len(alone) == time:
        of_batch, of_time = (float(np.abs(found - alone).max()) for found in (rows[:time], rows[::batch]))
        return "batch" if of_batch < of_time else "time"
    raise ModelError(
        f"cannot generate: its output {output} has {len(rows)} rows for {batch} sequences of {time} steps",
        path=model.path,
        hint="export a module whose output has a row for each sequence, or a batch and a time axis",
    )


def _drawn(fed: ValueInfo, axes: tuple[int, int]) -> np.ndarray:
    """Two sequences that differ in each step; for tokens the first two, which every vocabulary has."""
    shape = [dim if isinstance(dim, int) else 1 for dim in fed.shape]
    for axis, size in zip(axes, _SIZES, strict=True):
        shape[axis] = size
    if fed.dtype is not None and fed.dtype.kind == "f":
        return np.random.default_rng(0).standard_normal(shape).astype(fed.dtype)
    tokens = np.array([[0, 1, 1], [1, 0, 0]], fed.dtype)
    return tokens if axes == (0, 1) else tokens.T


def _rows(model: Model, fed: ValueInfo, output: ValueInfo, values: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    sizes = {str(fed.shape[axis]): values.shape[axis] for axis in axes}
    feeds = smallest_feeds(model, sizes) | {fed.name: values}
    return np.asarray(model.run(feeds)[output.name], np.float64)
