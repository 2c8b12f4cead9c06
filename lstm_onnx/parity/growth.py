"""Judges roundings that grow, as in a chaotic model or a stack with large weights, by several runs of PyTorch.

PyTorch's own error in a single run is one sample of the effect of rounding.  Where roundings grow, runs that round
differently differ by a factor of a hundred or more, and a right file may be far beyond 32 times one of them.  So for a
call that a file fails, several runs in float64 with every operator off by a rounding show how far rounding moves the
outputs.  That is used only where roundings have grown: elsewhere PyTorch's error suffices, and is the stricter measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..errors import ExportError
from ..runtime import Model
from .criterion import magnitude
from .expected import Arrays, Call, Expected, farther
from .replay import passes
from .tolerances import GROWN, NATIVE_EPSILON

_RUNS = 4
"""The number of runs of each call."""
_FINER = 2.0**10
"""How much smaller than float32's the roundings of these runs are; what they move is multiplied by it.

Growth is proportional to them.  A jump, as of an argmax of two nearly equal numbers, is not, and hardly ever happens:
a jump of PyTorch's own would allow any error.
"""
MOST_CASES, _MOST_CALLS = 3, 1 / 16
"""The most cases, and the largest share of a sweep's calls, in which growth may explain a failure.

Right files were beyond 32 times PyTorch's error in one call of hundreds; wrong ones are in most.
"""
ALONE = ("whole", "data", "values", "sweep", "steps")
"""Kinds of cases whose calls are independent of each other."""
GROWTH_NOTE = (
    "roundings grow in some cases; there, the error is compared with that of several runs of PyTorch that round "
    "differently"
)


def with_grown_roundings(
    rounded: Callable[[Arrays, float, int], Arrays], model: Model, expected: Expected
) -> Expected | None:
    """A case that a file fails, with the growth of roundings that explains the failure; None if none does.

    Args:
        rounded: runs the module in float64 with every operator off by up to a unit, for a seed.
        model: the file.
        expected: the case; calls of a sweep in which rounding is too large for a verdict are left out.
    """
    if expected.kind not in ALONE and len(expected.calls) > 1:
        return None
    calls: list[Call] = []
    failed = 0
    for call in expected.calls:
        if passes(model, expected, (call,)):
            calls.append(call)
            continue
        failed += 1
        if failed > max(1.0, _MOST_CALLS * len(expected.calls)):
            return None
        grown = _grown(rounded, expected, call)
        if grown is None or not passes(model, expected, (grown,)):
            return None
        if len(expected.calls) == 1 or grown.conclusive(expected.dtype):
            calls.append(grown)
    return replace(expected, calls=tuple(calls)) if calls else None


def _grown(rounded: Callable[[Arrays, float, int], Arrays], expected: Expected, call: Call) -> Call | None:
    """A call with the largest error that rounding causes in it; None if it has grown in no output."""
    unit = NATIVE_EPSILON[expected.dtype]
    native = dict(call.native)
    reference = {name: array for name, array in call.reference.items() if array.dtype.kind == "f"}
    if any(not np.isfinite(array).all() for array in reference.values()):
        return None
    for seed in range(_RUNS):
        try:
            found = expected.compared(rounded(call.feeds, unit / _FINER, seed))
        except ExportError:
            return None
        moved = {name: array + (found[name] - array) * _FINER for name, array in reference.items()}
        native |= farther(native, moved, reference)
    grown = replace(call, native=native)
    sizes = {name: max(1.0, magnitude(array)) for name, array in call.reference.items()}
    return grown if any(grown.torch_error(name) > GROWN * unit * size for name, size in sizes.items()) else None
