"""Judges outputs far smaller than 1, and features far smaller than others, by their own size.

The criterion's unit is PyTorch's error in all of an output, and at least one rounding of 1.  Of an output in which that
is far more than a feature's own rounding, each feature has its own unit: the largest of PyTorch's error in it over all
usual cases, of how far the rounding of every operator moves it, and of one rounding of its largest number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...errors import ExportError
from ..expected import Expected
from ..tolerances import EPSILON, NATIVE_EPSILON
from .run import ModuleRun

_COARSE = 16.0
"""A feature has its own unit if that of the whole output is this many times larger."""
_RUNS = 3
"""The number of runs with rounded operators for each case."""


def with_small_features(run: ModuleRun, cases: Sequence[Expected]) -> list[Expected]:
    """The cases, with `units` of the outputs that have small features.

    Args:
        run: the module in float64.
        cases: single runs of the usual sizes and values, some of which have a few features of wide outputs, and sweeps.
    """
    usual = [one for one in cases if one.kind == "whole" and not one.inconclusive and not one.feature_steps]
    if not usual or usual[0].dtype == "float16" or run.roundings.found:
        # Half precision underflows, and a module that rounds inside may be off by a whole unit of that rounding.
        return list(cases)
    own = {
        name: _own_units(name, usual) for name, array in usual[0].calls[0].reference.items() if array.dtype.kind == "f"
    }
    found = {name: unit for name, unit in own.items() if unit is not None and _is_coarse(name, unit, usual)}
    if not found:
        return list(cases)
    for case in usual:
        call = case.calls[0]
        for seed in range(_RUNS):
            try:
                moved = run.with_rounded_operators(call.feeds, NATIVE_EPSILON[case.dtype], seed)
            except ExportError:
                return list(cases)
            for name, unit in found.items():
                largest = _largest(moved[name] - call.reference[name], unit.ndim)
                found[name] = np.maximum(unit, largest * (EPSILON[case.dtype] / NATIVE_EPSILON[case.dtype]))
    return [_with_units(case, found) if case.kind in ("whole", "sweep") else case for case in cases]


def _own_units(name: str, usual: Sequence[Expected]) -> np.ndarray | None:
    """The unit of each feature without roundings of operators; no limit for one that is always 0."""
    calls = [call for case in usual for call in case.calls]
    references = [call.reference[name] for call in calls]
    if not all(call.native[name].shape == call.reference[name].shape for call in calls):
        return None
    by_feature = len({array.shape[-1:] for array in references}) == 1 and min(array.ndim for array in references) > 1
    axes = 1 if by_feature else 0
    size = np.max([_largest(array, axes) for array in references], axis=0)
    error = _torch_errors(usual, name, axes)
    unit = np.maximum(np.maximum(error, EPSILON[usual[0].dtype] * size), float(np.finfo(usual[0].dtype).tiny))
    return np.asarray(np.where(size > 0, unit, np.finfo(np.float64).max))


def _torch_errors(cases: Sequence[Expected], name: str, axes: int) -> np.ndarray:
    """PyTorch's own largest error in each feature, in the units of the model's dtype."""
    calls = [call for case in cases for call in case.calls]
    dtype = cases[0].dtype
    errors = [_largest(call.native[name] - call.reference[name], axes) for call in calls]
    return np.asarray(np.max(errors, axis=0) * (EPSILON[dtype] / NATIVE_EPSILON[dtype]))


def _largest(array: np.ndarray, axes: int) -> np.ndarray:
    """The largest finite size of each feature (1 axis), or of all (0)."""
    finite = np.abs(np.where(np.isfinite(array), array, 0.0))
    # If a sequence is too short for a kernel, an output is empty.
    return np.asarray(finite.max(axis=tuple(range(finite.ndim - 1)) if axes else None, initial=0.0))


def _is_coarse(name: str, unit: np.ndarray, usual: Sequence[Expected]) -> bool:
    """Whether the criterion's unit in a usual case is far more than that of a feature."""
    return bool((unit < max(float(_torch_errors(usual, name, 0)), EPSILON[usual[0].dtype]) / _COARSE).any())


def _with_units(case: Expected, units: Mapping[str, np.ndarray]) -> Expected:
    """A case with these units; those of a sweep, and of a few features, are at least PyTorch's errors in it."""
    found = {}
    further = case.kind == "sweep" or bool(case.feature_steps)
    for name, unit in units.items():
        part = unit[:: case.feature_steps.get(name, 1)] if unit.ndim else unit
        if all(part.shape in ((), call.reference[name].shape[-1:]) for call in case.calls):
            found[name] = np.maximum(part, _torch_errors([case], name, part.ndim)) if further else part
    return replace(case, units=found)
