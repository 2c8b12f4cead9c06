"""Where a file first differs from a bare nn.LSTM: time step, layer, direction and gate.

The file is asked as a black box, so that this works for a file of any make: the states after the first
steps tell step, layer and direction, and one step from two values of c tells the forget gate (c changes
by f times the difference), what i and g write together, and (by h = o tanh c) the output gate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from ...errors import InputError, RunError
from ...runtime import Model
from ...spec import LSTMSpec
from ..cases import Case
from ..criterion import EPSILON, K, compare
from ..reference import Outputs, run_torch, states_after
from ..report import Location

_DIRECTIONS = ("forward", "reverse")
_LEAST_TANH = 0.05
"""Of tanh c, below which h = o tanh c says nothing of o."""


def locate(model: Model, spec: LSTMSpec, own: nn.LSTM, wide: nn.LSTM, case: Case, location: Location) -> Location:
    """`location` with the step, layer, direction and gate at which the file first goes wrong in `case`."""
    time_axis = 1 if spec.batch_first else 0
    time = case.input.shape[time_axis]
    for steps in range(1, time + 1):
        prefix = _first_steps(case, steps, time_axis)
        try:
            actual = model.run(prefix.feeds())
        except (InputError, RunError):
            continue  # a size that the file was not made for
        wrong = _wrong_state(actual, run_torch(own, prefix), run_torch(wide, prefix), spec)
        if wrong is not None:
            layer, direction = divmod(wrong, spec.num_directions)
            found = replace(
                location,
                step=steps - 1,
                layer=layer,
                direction=_DIRECTIONS[direction] if spec.bidirectional else None,
            )
            return replace(found, gate=_gate(model, spec, wide, prefix, wrong))
    return location


def _first_steps(case: Case, steps: int, time_axis: int) -> Case:
    lengths = None if case.lengths is None else np.minimum(case.lengths, steps).astype(case.lengths.dtype)
    return replace(case, input=np.take(case.input, range(steps), axis=time_axis), lengths=lengths)


def _wrong_state(actual: Outputs, own: Outputs, reference: Outputs, spec: LSTMSpec) -> int | None:
    """The first layer and direction, of L*D, whose h or c is not within the criterion."""
    scale = max(1.0, float(np.abs(reference["cn"]).max()))
    for index in range(spec.num_layers * spec.num_directions):
        for name in ("cn", "hn"):
            if name not in actual or actual[name].shape != reference[name].shape:
                return None
            result = compare(
                name, actual[name][index], own[name][index], reference[name][index], dtype=spec.dtype, scale=scale
            )
            if not result.passed:
                return index
    return None


def _gate(model: Model, spec: LSTMSpec, wide: nn.LSTM, prefix: Case, wrong: int) -> str | None:
    """Its gates that are wrong, by a step from two values of its c; None where it cannot be told."""
    if prefix.lengths is not None:
        return None
    time_axis = 1 if spec.batch_first else 0
    before = _first_steps(prefix, prefix.input.shape[time_axis] - 1, time_axis)
    h, c = states_after(wide, before)
    # A reverse direction starts with the last step, which is the one that is looked at.
    x = np.take(prefix.input, [-1], axis=time_axis)
    h, c = h.astype(spec.dtype), c.astype(spec.dtype)
    other = c.copy()
    other[wrong] += 1.0
    cases = [Case("", x, (h, start), None) for start in (c, other)]
    try:
        actual = [model.run(case.feeds()) for case in cases]
    except (InputError, RunError):
        return None
    reference = [run_torch(wide, case) for case in cases]
    difference = other[wrong].astype(np.float64) - c[wrong]

    def gates(outputs: list[Outputs]) -> dict[str, np.ndarray]:
        one, two = (run["cn"][wrong].astype(np.float64) for run in outputs)
        forget = (two - one) / difference
        found = {"i or g": one - forget * c[wrong], "f": forget}
        if not spec.proj_size:
            # Where c is about zero its tanh hides o.
            shown = np.tanh(one)
            told = np.abs(shown) > _LEAST_TANH
            found["o"] = np.where(told, outputs[0]["hn"][wrong] / np.where(told, shown, 1.0), np.nan)
        return found

    ours, right = gates(actual), gates(reference)
    bound = K * EPSILON[spec.dtype] * max(1.0, float(np.abs(reference[1]["cn"]).max())) / _LEAST_TANH
    names = [name for name in right if (np.abs(ours[name] - right[name]) > bound).any()]
    # Where all of them are wrong, it is not the gates.
    return " and ".join(names) if len(names) < len(right) else None
