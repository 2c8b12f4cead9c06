"""Integers that depend on a rounding, such as an argmax of two nearly equal numbers.

A right file may have another one than PyTorch there.  Where a file differs, the module runs in float64 with the
results of every operator off by a few roundings, and each integer must be what one of these runs gives: elsewhere a
single one that differs is wrong, such as the last of a sequence, or one of each thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...errors import ExportError
from ...runtime import Model
from ..expected import Call, Expected
from ..replay import replay
from ..tolerances import NATIVE_EPSILON
from .jumps import INDEPENDENT
from .run import ModuleRun

_UNITS = (1, 4, 16)
"""How many roundings operators are off by, in a few runs each."""
_RUNS = 6


def with_ties(run: ModuleRun, model: Model, expected: Expected) -> Expected:
    """The case with the `ties` of the calls in which a file has other integers.

    Args:
        run: the module in float64.
        model: the file.
        expected: the case; a stream's calls continue from its own states.
    """
    if expected.kind not in INDEPENDENT:
        return replace(expected, calls=_with_ties(run, expected, expected.calls))
    calls: list[Call] = []
    for number, call in enumerate(expected.calls):
        alone = replace(expected, calls=(call,))
        if any(tensor.tipped for tensor in replay(model, alone).tensors):
            alone = replace(alone, calls=_with_ties(run, expected, alone.calls))
        calls += alone.calls
        if call is not alone.calls[0] and not replay(model, alone).passed:
            return replace(expected, calls=(*calls, *expected.calls[number + 1 :]))  # it is wrong
    return replace(expected, calls=tuple(calls))


def _with_ties(run: ModuleRun, expected: Expected, calls: tuple[Call, ...]) -> tuple[Call, ...]:
    moved = [
        list(_runs(run, expected, calls, units * NATIVE_EPSILON[expected.dtype], _RUNS * units + seed))
        for units in _UNITS
        for seed in range(_RUNS)
    ]
    found = []
    for number, call in enumerate(calls):
        ties = {name: [array] for name, array in call.reference.items() if array.dtype.kind in "iub"}
        for results in moved:
            for name, arrays in ties.items() if number < len(results) else ():
                if name in results[number] and results[number][name].shape == arrays[0].shape:
                    arrays.append(results[number][name])
        found.append(replace(call, ties={name: np.stack(arrays) for name, arrays in ties.items()}))
    return tuple(found)


def _runs(
    run: ModuleRun, expected: Expected, calls: tuple[Call, ...], unit: float, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """What the module gives in each of the calls in turn, as far as it runs."""
    states: dict[str, np.ndarray] = {}
    for call in calls:
        try:
            found = run.with_rounded_operators(states | dict(call.feeds), unit, seed)
        except ExportError:
            return
        if expected.kind not in INDEPENDENT:
            states = {name: found[after] for name, after in run.state_pairs.items() if after in found}
        yield expected.compared(found)
