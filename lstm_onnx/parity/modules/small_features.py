"""Judges outputs far smaller than 1, and features far smaller than others, by their own size.

The criterion's unit is PyTorch's error in all of an output, and at least one rounding of 1.  Of an output in which that
is far more than a feature's own rounding, each feature has its own unit: the largest of PyTorch's error in it over all
usual cases, of how far the rounding of every operator moves it, and of one rounding of its largest number.

The features are along every axis of a fixed size, as the channels of an output (batch, channels, time) are; of several
such axes an entry has the smaller unit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...errors import ExportError
from ..expected import Expected, fits, some_features
from ..tolerances import EPSILON, NATIVE_EPSILON
from .run import ModuleRun

_COARSE = 16.0
"""A feature has its own unit if that of the whole output is this many times larger."""
_RUNS = 3
"""The number of runs with rounded operators for each case."""
_MOST = 4096
"""If an output has more features along its fixed axes, only the last of these counts: a golden file stays small."""
_Largest = tuple[np.ndarray, ...]
"""The largest sizes of the features along each axis, or of the whole output; each broadcasts with it."""


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
    axes = {name: _axes(name, usual) for name, array in usual[0].calls[0].reference.items() if array.dtype.kind == "f"}
    own = {name: _own_units(name, usual, along) for name, along in axes.items() if along is not None}
    found = {name: units for name, units in own.items() if _is_coarse(name, _together(units), usual)}
    if not found:
        return list(cases)
    for case in usual:
        call = case.calls[0]
        for seed in range(_RUNS):
            try:
                moved = run.with_rounded_operators(call.feeds, NATIVE_EPSILON[case.dtype], seed)
            except ExportError:
                return list(cases)
            for name, units in found.items():
                error = _scaled(_largest(moved[name] - call.reference[name], axes[name] or ()), case.dtype)
                found[name] = _most([units, error])
    smallest = {name: _together(each) for name, each in found.items()}
    return [_with_units(case, smallest, axes) if case.kind in ("whole", "sweep") else case for case in cases]


def _axes(name: str, usual: Sequence[Expected]) -> tuple[int, ...] | None:
    """The axes from the end that have one size in all cases; None of an output whose precisions differ in shape."""
    calls = [call for case in usual for call in case.calls]
    if not all(call.native[name].shape == call.reference[name].shape for call in calls):
        return None
    shapes = {call.reference[name].shape for call in calls}
    if len({*map(len, shapes)}) > 1 or len(next(iter(shapes))) < 2:
        return ()
    known = {axes[name] for axes in (usual[0].batch_axes, usual[0].time_axes) if name in axes}
    fixed = {axis: sizes.pop() for axis, sizes in enumerate(map(set, zip(*shapes, strict=True))) if len(sizes) == 1}
    kept = [axis for axis, size in fixed.items() if size > 1 and axis not in known]
    if math.prod(fixed[axis] for axis in kept) > _MOST:
        kept = kept[-1:]
    return tuple(axis - len(next(iter(shapes))) for axis in kept)


def _own_units(name: str, usual: Sequence[Expected], axes: tuple[int, ...]) -> _Largest:
    """The unit of each feature without roundings of operators; no limit for one that is always 0."""
    sizes = _most(_largest(call.reference[name], axes) for case in usual for call in case.calls)
    dtype = usual[0].dtype
    least, most = float(np.finfo(dtype).tiny), np.finfo(np.float64).max
    return tuple(
        np.where(size > 0, np.maximum(np.maximum(error, EPSILON[dtype] * size), least), most)
        for error, size in zip(_torch_errors(usual, name, axes), sizes, strict=True)
    )


def _torch_errors(cases: Sequence[Expected], name: str, axes: tuple[int, ...]) -> _Largest:
    """PyTorch's own largest error in each feature, in the units of the model's dtype."""
    calls = [call for case in cases for call in case.calls]
    errors = _most(_largest(call.native[name] - call.reference[name], axes) for call in calls)
    return _scaled(errors, cases[0].dtype)


def _scaled(errors: _Largest, dtype: str) -> _Largest:
    return tuple(error * (EPSILON[dtype] / NATIVE_EPSILON[dtype]) for error in errors)


def _largest(array: np.ndarray, axes: tuple[int, ...]) -> _Largest:
    """The largest finite size of each feature along each axis; of the whole output without axes."""
    finite = np.abs(np.where(np.isfinite(array), array, 0.0))
    if not axes:
        return (np.asarray(finite.max(initial=0.0)),)
    # If a sequence is too short for a kernel, an output is empty.
    along = [tuple(other for other in range(-array.ndim, 0) if other != axis) for axis in axes]
    return tuple(
        finite.max(axis=others, initial=0.0, keepdims=True).reshape(-1, *(1,) * (-1 - axis))
        for axis, others in zip(axes, along, strict=True)
    )


def _most(found: Iterable[_Largest]) -> _Largest:
    return tuple(functools.reduce(np.maximum, each) for each in zip(*found, strict=True))


def _together(units: _Largest) -> np.ndarray:
    """The smaller unit of those along each axis; no limit where a feature is always 0."""
    least, most = (functools.reduce(each, units) for each in (np.minimum, np.maximum))
    return np.where(most == np.finfo(np.float64).max, most, least)


def _is_coarse(name: str, unit: np.ndarray, usual: Sequence[Expected]) -> bool:
    """Whether the criterion's unit in a usual case is far more than that of a feature."""
    (error,) = _torch_errors(usual, name, ())
    return bool((unit < max(float(error), EPSILON[usual[0].dtype]) / _COARSE).any())


def _with_units(
    case: Expected, units: Mapping[str, np.ndarray], axes: Mapping[str, tuple[int, ...] | None]
) -> Expected:
    """A case with these units; those of a sweep, and of a few features, are at least PyTorch's errors in it."""
    found = {}
    further = case.kind == "sweep" or bool(case.feature_steps)
    for name, unit in units.items():
        part = some_features({name: unit}, case.feature_steps)[name]
        if all(fits(part, call.reference[name]) for call in case.calls):
            errors = _torch_errors([case], name, axes[name] or ()) if further else ()
            found[name] = np.maximum(part, _together(errors)) if errors else part
    return replace(case, units=found)
