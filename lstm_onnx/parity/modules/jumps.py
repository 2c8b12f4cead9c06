"""Handles outputs that jump because a number is rounded inside, such as to bfloat16, by ``round`` or a comparison.

If such a number lies at the edge between two roundings, the last bit of what comes before decides between them, and a
right file may land on the other side than PyTorch.  For a call that fails, the module runs in float64 with the results
of its recurrent layers, or of every operator that may round, off by a few roundings: an output may then be anywhere
between what these runs give, but only where they are farther from the reference than rounding without a jump can be.
A module without jumps has no such places; and a file that does not round, or rounds otherwise, differs at many others.
PyTorch's own run, whose every comparison is its own, is tried first: a product that underflows to 0 in float32 is
still negative in float64.

Integers jump as well, such as an argmax of two nearly equal numbers.  Where a file has another one than PyTorch, the
module runs in float64 with the results of every operator off by a few roundings, and each integer must be what one of
these runs gives: elsewhere a single one that differs is wrong, such as the last of a sequence, or one of each thousand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ...errors import ExportError
from ...runtime import Model
from ..expected import Arrays, Call, Expected, perturbed
from ..growth import ALONE
from ..replay import passes, replay
from ..tolerances import NATIVE_EPSILON, K
from .run import ModuleRun

_LAYER_RUNS, _OPERATOR_RUNS, _UNITS = 8, 16, (1, 4)
"""In half of the runs, a number at an edge is on its other side; right files were off by one or two roundings."""
_MORE = 2.0
"""How many times farther off than all of these runs a file may be."""
_TIE_RUNS, _TIE_UNITS = 6, (1, 4, 16)
"""For integers: by how many roundings operators are off, in a few runs each."""
_Run = tuple[Callable[[Arrays], Arrays], Sequence[Arrays]]
JUMPS_NOTE = (
    "some outputs jump with the last bits of float32, such as where the module rounds to bfloat16 inside; there, both "
    "sides of a jump pass"
)


def with_jumps(run: ModuleRun, native: ModuleRun, model: Model, expected: Expected) -> Expected | None:
    """A case that a file fails, with the jumps that explain it; None where they do not.

    Args:
        run: the module in float64.
        native: the module in the file's dtype.
        model: the file.
        expected: the case.
    """
    alone = expected.kind in ALONE
    calls: list[Call] = []
    for part in [(call,) for call in expected.calls] if alone else [expected.calls]:
        found: tuple[Call, ...] | None = part
        if not passes(model, expected, part):
            tried = (_with_jumps(run, way, expected, part) for way in _ways(run, native, expected, part))
            found = next((one for one in tried if one is not None and passes(model, expected, one)), None)
        if found is None:
            return None
        calls += found
    return replace(expected, calls=tuple(calls))


def _ways(run: ModuleRun, native: ModuleRun, expected: Expected, calls: tuple[Call, ...]) -> Iterator[list[_Run]]:
    """Runs that may show jumps: what computes each call, and the inputs of the calls."""
    yield [(native, [call.feeds for call in calls])]
    every = ((run.with_rounded_layers, _LAYER_RUNS), (run.with_rounded_operators, _OPERATOR_RUNS))
    for (rounded, runs), units in itertools.product(every, _UNITS):
        unit = units * NATIVE_EPSILON[expected.dtype]
        # The inputs are the same numbers in all libraries: a comparison or a ``round`` of them has one result.
        yield [(partial(rounded, unit=unit, seed=seed), [call.feeds for call in calls]) for seed in range(runs)]


def _with_jumps(
    run: ModuleRun, runs: Iterable[_Run], expected: Expected, calls: tuple[Call, ...]
) -> tuple[Call, ...] | None:
    """Successive calls with the jumps that these runs show; None where they have none."""
    moved: list[list[dict[str, np.ndarray]]] = []
    for once, feeds in runs:
        results = _in_turn(run, expected, once, feeds)
        moves = [_moves(call, found) for call, found in zip(calls, results, strict=False)]
        known = [each for each in moves if each is not None]
        if len(known) < len(calls):
            return None
        moved.append(known)
    every = zip(calls, zip(*moved, strict=True), strict=True)
    found = tuple(replace(call, jumps=_jumps(expected, call, moves)) for call, moves in every)
    return found if any(call.jumps for call in found) else None


def _in_turn(
    run: ModuleRun, expected: Expected, once: Callable[[Arrays], Arrays], feeds: Sequence[Arrays]
) -> list[dict[str, np.ndarray]]:
    """What `once` gives for each of `feeds` and the states after the one before, as far as the module runs."""
    found: list[dict[str, np.ndarray]] = []
    states: Arrays = {}
    for given in feeds:
        try:
            outputs = once({**states, **given})
        except ExportError:
            break
        states = {name: outputs[after] for name, after in run.state_pairs.items() if after in outputs}
        found.append(expected.compared(outputs))
    return found


def _moves(call: Call, found: Arrays) -> dict[str, np.ndarray] | None:
    """How far each floating-point output of a run is from the reference; None where one has another shape."""
    moves = {}
    for name, reference in call.reference.items():
        if reference.dtype.kind == "f":
            if found[name].shape != reference.shape:
                return None
            with np.errstate(invalid="ignore"):
                moves[name] = np.nan_to_num(found[name] - reference, nan=0.0, posinf=0.0, neginf=0.0)
    return moves


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


def with_ties(run: ModuleRun, model: Model, expected: Expected) -> Expected:
    """The case with the `ties` of the calls in which a file has other integers.

    Args:
        run: the module in float64.
        model: the file.
        expected: the case; a stream's calls continue from its own states.
    """
    if expected.kind not in ALONE:
        return replace(expected, calls=with_all_ties(run, expected, expected.calls))
    calls: list[Call] = []
    for number, call in enumerate(expected.calls):
        alone = replace(expected, calls=(call,))
        if any(tensor.tipped for tensor in replay(model, alone).tensors):
            alone = replace(alone, calls=with_all_ties(run, expected, alone.calls))
        calls += alone.calls
        if call is not alone.calls[0] and not replay(model, alone).passed:
            return replace(expected, calls=(*calls, *expected.calls[number + 1 :]))  # it is wrong
    return replace(expected, calls=tuple(calls))


def with_near_ties(run: ModuleRun, expected: Expected) -> Expected:
    """The case with the `ties` of every call that has integers, for a file of which nothing is known.

    Runs with other roundings of every operator take long, so fast ones show whether there may be any.

    Args:
        run: the module in float64.
        expected: the case.
    """
    alone = expected.kind in ALONE
    unit = max(_TIE_UNITS) * NATIVE_EPSILON[expected.dtype]
    calls: list[Call] = []
    for part in [(call,) for call in expected.calls] if alone else [expected.calls]:
        if not any(call.integers - call.ties.keys() for call in part):
            calls += part
            continue
        ties = [{name: [call.reference[name], call.native[name]] for name in call.integers} for call in part]
        for seed in range(_TIE_RUNS):
            feeds = [perturbed(call.feeds, expected.dtype, seed) for call in part]
            _add_integers(ties, _in_turn(run, expected, partial(run.with_rounded_weights, unit=unit, seed=seed), feeds))
        same = all((one == arrays[0]).all() for found in ties for arrays in found.values() for one in arrays)
        calls += map(_stacked, part, ties) if same else with_all_ties(run, expected, part)
    return replace(expected, calls=tuple(calls))


def with_all_ties(run: ModuleRun, expected: Expected, calls: tuple[Call, ...]) -> tuple[Call, ...]:
    """Successive calls with the `ties` of their integers."""
    ties = [{name: [call.reference[name]] for name in call.integers} for call in calls]
    for units, seed in itertools.product(_TIE_UNITS, range(_TIE_RUNS)):
        unit = units * NATIVE_EPSILON[expected.dtype]
        once = partial(run.with_rounded_operators, unit=unit, seed=_TIE_RUNS * units + seed)
        _add_integers(ties, _in_turn(run, expected, once, [call.feeds for call in calls]))
    return tuple(map(_stacked, calls, ties))


def _add_integers(ties: Sequence[Mapping[str, list[np.ndarray]]], results: Sequence[Arrays]) -> None:
    for found, outputs in zip(ties, results, strict=False):
        for name, arrays in found.items():
            if name in outputs and outputs[name].shape == arrays[0].shape:
                arrays.append(outputs[name])


def _stacked(call: Call, ties: Mapping[str, list[np.ndarray]]) -> Call:
    return replace(call, ties={name: np.stack(arrays) for name, arrays in ties.items()})
