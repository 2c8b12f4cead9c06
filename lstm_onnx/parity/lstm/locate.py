"""Locates where a file first differs from a bare nn.LSTM: time step, layer, direction and gate.

The file is run as a black box, so this works for files from any exporter: the states after the first steps give
step, layer and direction, and one step from two values of c gives the forget gate (c changes by f times the
difference), the product of i and g, and (by h = o tanh c) the output gate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ...errors import InputError, RunError
from ...spec import LSTMSpec
from ..criterion import compare
from ..expected import Arrays
from ..results import Location
from ..tolerances import EPSILON, LEAST_TANH, K
from .reference import Outputs, run_torch, states_after

if TYPE_CHECKING:
    from ..comparison import Models

_DIRECTIONS = ("forward", "reverse")


def locate(models: Models[nn.LSTM], spec: LSTMSpec, feeds: Arrays, location: Location) -> Location:
    """`location` with the step, layer, direction and gate at which the file first differs on `feeds`."""
    time_axis = 1 if spec.batch_first else 0
    for steps in range(1, feeds["input"].shape[time_axis] + 1):
        prefix = _first_steps(feeds, steps, time_axis)
        try:
            actual = models.file.run(prefix)
        except (InputError, RunError):
            continue  # the file fails at this size
        native, reference = run_torch(models.native, prefix), run_torch(models.float64, prefix)
        wrong = _wrong_state(actual, native, reference, spec)
        if wrong is not None:
            layer, direction = divmod(wrong, spec.num_directions)
            found = replace(
                location, step=steps - 1, layer=layer, direction=_DIRECTIONS[direction] if spec.bidirectional else None
            )
            return replace(found, gate=_gate(models, spec, prefix, wrong))
    return location


def _first_steps(feeds: Arrays, steps: int, time_axis: int) -> Arrays:
    first = {**feeds, "input": np.take(feeds["input"], range(steps), axis=time_axis)}
    if "lengths" in feeds:
        first["lengths"] = np.minimum(feeds["lengths"], steps).astype(feeds["lengths"].dtype)
    return first


def _wrong_state(actual: Outputs, native: Outputs, reference: Outputs, spec: LSTMSpec) -> int | None:
    """The first layer and direction, of L*D, whose h or c is not within the criterion."""
    scale = max(1.0, float(np.abs(reference["cn"]).max()))
    for index in range(spec.num_layers * spec.num_directions):
        for name in ("cn", "hn"):
            if name not in actual or actual[name].shape != reference[name].shape:
                return None
            result = compare(
                name, actual[name][index], native[name][index], reference[name][index], dtype=spec.dtype, scale=scale
            )
            if not result.passed:
                return index
    return None


def _gate(models: Models[nn.LSTM], spec: LSTMSpec, prefix: Arrays, wrong: int) -> str | None:
    """The wrong gates, by a step from two values of c; None where they cannot be determined."""
    if "lengths" in prefix:
        return None
    time_axis = 1 if spec.batch_first else 0
    before = _first_steps(prefix, prefix["input"].shape[time_axis] - 1, time_axis)
    # A reverse direction starts with the last step, which is the one examined here.
    x = np.take(prefix["input"], [-1], axis=time_axis)
    h, c = (state.astype(spec.dtype) for state in states_after(models.float64, before).values())
    other = c.copy()
    other[wrong] += 1.0
    calls = [{"input": x, "h0": h, "c0": start} for start in (c, other)]
    try:
        actual = [models.file.run(feeds) for feeds in calls]
    except (InputError, RunError):
        return None
    reference = [run_torch(models.float64, feeds) for feeds in calls]
    difference = other[wrong].astype(np.float64) - c[wrong]

    def gates(outputs: list[Outputs]) -> dict[str, np.ndarray]:
        one, two = (run["cn"][wrong].astype(np.float64) for run in outputs)
        forget = (two - one) / difference
        found = {"i or g": one - forget * c[wrong], "f": forget}
        if not spec.proj_size:
            # Where c is near 0, tanh c hides o.
            tanh = np.tanh(one)
            known = np.abs(tanh) > LEAST_TANH
            found["o"] = np.where(known, outputs[0]["hn"][wrong] / np.where(known, tanh, 1.0), np.nan)
        return found

    ours, right = gates(actual), gates(reference)
    bound = K * EPSILON[spec.dtype] * max(1.0, float(np.abs(reference[1]["cn"]).max())) / LEAST_TANH
    names = [name for name in right if (np.abs(ours[name] - right[name]) > bound).any()]
    # If all of them are wrong, the fault is not in the gates.
    return " and ".join(names) if len(names) < len(right) else None
