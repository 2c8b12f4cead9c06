"""Outputs that jump where a number is rounded on the way, such as to bfloat16, by ``round`` or by a comparison.

Where such a number lies at the edge between two roundings, the last bit of what comes before decides between them, and
a right file may be where PyTorch is not.  In a call that fails, the module runs in float64 with what its recurrent
layers and inputs give off by a few roundings: an output may then be anywhere between what these runs give, but only
where they are farther from the reference than rounding may be without a jump.  A module without jumps has none of
these places, and of others a file that rounds nowhere, or otherwise, differs in many.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...errors import ExportError
from ...runtime import Model
from ..expected import Call, Expected, perturbed
from ..replay import replay
from ..tolerances import NATIVE_EPSILON
from .run import ModuleRun

_RUNS = 8
"""A number at an edge is on its other side in half of them."""
_UNITS = (1, 4)
"""How many roundings are tried: right files were off by one or two before a jump."""
_INDEPENDENT = ("whole", "values", "data", "sweep", "steps")
"""Kinds of cases whose calls do not depend on each other."""


def with_jumps(run: ModuleRun, model: Model, expected: Expected) -> Expected | None:
    """A case that a file fails, with the jumps that explain it; None where they do not.

    Args:
        run: the module in float64.
        model: the file.
        expected: the case.
    """
    if len(expected.calls) > 1 and expected.kind not in _INDEPENDENT:
        return None
    calls = []
    for call in expected.calls:
        found: Call | None = call
        if not _passes(model, expected, call):
            tried = (_with_jumps(run, expected, call, units) for units in _UNITS)
            found = next((one for one in tried if one is not None and _passes(model, expected, one)), None)
        if found is None:
            return None
        calls.append(found)
    return replace(expected, calls=tuple(calls))


def _passes(model: Model, expected: Expected, call: Call) -> bool:
    result = replay(model, replace(expected, calls=(call,)))
    return result.passed or result.inconclusive


def _with_jumps(run: ModuleRun, expected: Expected, call: Call, units: int) -> Call | None:
    """A call with the jumps of its outputs at so many roundings; None where it has none."""
    unit = units * NATIVE_EPSILON[expected.dtype]
    right = replace(expected, calls=(call,), dtypes={}, feature_steps={}, time_axes={}).judge([call.reference])
    bounds = {one.output: one.allowed for one in right.tensors if call.reference[one.output].dtype.kind == "f"}
    moves: dict[str, list[np.ndarray]] = {name: [np.zeros_like(call.reference[name])] for name in bounds}
    for seed in range(_RUNS):
        try:
            found = run.with_rounded_layers(perturbed(call.feeds, expected.dtype, seed), unit, seed)
        except ExportError:
            return None
        for name, moved in moves.items():
            array = found[name][..., :: expected.feature_steps[name]] if name in expected.feature_steps else found[name]
            if array.shape != moved[0].shape:
                return None
            with np.errstate(invalid="ignore"):
                moved.append(np.nan_to_num(array - call.reference[name], nan=0.0, posinf=0.0, neginf=0.0))
    jumps = {}
    for name, bound in bounds.items():
        there = np.max(np.abs(moves[name]), axis=0) > bound
        if there.any():
            ends = np.min(moves[name], axis=0), np.max(moves[name], axis=0)
            jumps[name] = (np.where(there, ends[0], 0.0), np.where(there, ends[1], 0.0))
    return replace(call, jumps=jumps) if jumps else None
