"""Outputs that jump where a number is rounded on the way, such as to bfloat16, by ``round`` or by a comparison.

If such a number lies at the edge between two roundings, the last bit of what comes before decides between them, and a
right file may land on the other side than PyTorch.  For a call that fails, the module runs in float64 with its inputs
and its recurrent layers' results off by a few roundings: an output may then be anywhere between what these runs give,
but only where they are farther from the reference than rounding without a jump can be.  A module without jumps has no
such places; and a file that does not round, or rounds differently, differs at many others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...errors import ExportError
from ...runtime import Model
from ..expected import Call, Expected, perturbed
from ..replay import replay
from ..tolerances import NATIVE_EPSILON, K
from .run import ModuleRun

_RUNS = 8
"""In half of them, a number at an edge is on its other side."""
_UNITS = (1, 4)
"""How many roundings are tried: right files were off by one or two before a jump."""
_MORE = 2.0
"""How many times farther off than all these runs a file may be."""
JUMPS_NOTE = (
    "some outputs jump with the last bits of float32, as where the module rounds to bfloat16 on the way; there, both "
    "sides of a jump pass"
)
INDEPENDENT = ("whole", "values", "data", "sweep", "steps")
"""Kinds of cases whose calls are independent of each other."""


def with_jumps(run: ModuleRun, model: Model, expected: Expected) -> Expected | None:
    """A case that a file fails, with the jumps that explain it; None where they do not.

    Args:
        run: the module in float64.
        model: the file.
        expected: the case.
    """
    alone = expected.kind in INDEPENDENT
    calls: list[Call] = []
    for part in [(call,) for call in expected.calls] if alone else [expected.calls]:
        found: tuple[Call, ...] | None = part
        if not _passes(model, expected, part):
            tried = (_with_jumps(run, expected, part, units) for units in _UNITS)
            found = next((one for one in tried if one is not None and _passes(model, expected, one)), None)
        if found is None:
            return None
        calls += found
    return replace(expected, calls=tuple(calls))


def _passes(model: Model, expected: Expected, calls: tuple[Call, ...]) -> bool:
    result = replay(model, replace(expected, calls=calls))
    return result.passed or result.inconclusive


def _with_jumps(run: ModuleRun, expected: Expected, calls: tuple[Call, ...], units: int) -> tuple[Call, ...] | None:
    """Successive calls with the jumps of their outputs at so many roundings; None where they have none."""
    moved: list[list[dict[str, np.ndarray]]] = []
    for seed in range(_RUNS):
        try:
            moved.append(list(_moved(run, expected, calls, units * NATIVE_EPSILON[expected.dtype], seed)))
        except ExportError:
            return None
    every = zip(calls, zip(*moved, strict=True), strict=True)
    found = tuple(replace(call, jumps=_jumps(expected, call, moves)) for call, moves in every)
    return found if any(call.jumps for call in found) else None


def _moved(
    run: ModuleRun, expected: Expected, calls: tuple[Call, ...], unit: float, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """How far numbers that are off by a `unit` move each floating-point output of successive calls."""
    states: dict[str, np.ndarray] = {}
    for call in calls:
        found = run.with_rounded_layers(states | perturbed(call.feeds, expected.dtype, seed), unit, seed)
        states = {name: found[after] for name, after in run.state_pairs.items() if after in found}
        moves, compared = {}, expected.compared(found)
        for name, reference in call.reference.items():
            if reference.dtype.kind == "f":
                array = compared[name]
                if array.shape != reference.shape:
                    raise ExportError(f"{name} has another shape")
                with np.errstate(invalid="ignore"):
                    moves[name] = np.nan_to_num(array - reference, nan=0.0, posinf=0.0, neginf=0.0)
        yield moves


def _jumps(
    expected: Expected, call: Call, moved: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each output that jumps, how far it may be below and above the reference."""
    right = replace(expected, calls=(call,), dtypes={}, time_axes={}).judge([call.reference])
    jumps = {}
    for one in right.tensors:
        if call.reference[one.output].dtype.kind == "f":
            moves = np.stack([np.zeros_like(call.reference[one.output]), *(run[one.output] for run in moved)])
            farthest = np.abs(moves).max(axis=0)
            if (farthest > one.allowed).any():
                # A jump fades in later steps; where there are several, a file has others than these runs.
                there = _MORE * (farthest > one.allowed / K)
                jumps[one.output] = (there * moves.min(axis=0), there * moves.max(axis=0))
    return jumps
