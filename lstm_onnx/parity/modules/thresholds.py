"""Makes a case in which inputs are exactly the numbers at which a comparison or a rounding changes.

``x > 0.3`` and ``x >= 0.3`` differ for one number alone, which random inputs never are, and so do ``round(2 * x)`` and
``floor(2 * x + 0.5)``.  Numbers that a file compares with are among its constants.  Where the module computes what it
compares or rounds, such a number is searched for: as a whole row of inputs, by bisection in the module's own dtype.
A number counts only if no rounding of what was computed before decides there: elsewhere a right file may be on either
side.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import numpy_helper

from ...errors import ExportError
from ...input_spec import InputSpec, most_entries
from ...onnxgraph.nodes import nodes_of, stored_tensors
from ..expected import Expected
from ..replay import replay
from ..sizes import MOST_WORK
from ..tolerances import EPSILON, NATIVE_EPSILON
from .inputs import BATCH, TIME, axes_of_size
from .jumps import with_all_ties
from .run import ModuleRun
from .subject import Subject

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_MOST = 16
"""The most constants of a file that are tried."""
_SIZE = (3, 24)
"""The rows and steps of the case."""
_ENDS = np.array([-1000, -30, -3, -2, -1.3, -0.7, -0.2, 0.2, 0.7, 1.3, 2, 3, 30, 1000.0])
"""The ends of the intervals that are searched, one in each row."""
_ROWS = len(_ENDS) - 1
_FINER = 14
"""The bisections beyond the digits of a dtype: a number may be far smaller than its interval."""
_MOST_ENTRIES, _RUNS = 2**18, 50
"""If an input has more elements than this, there is no search; about the number of its runs."""
_PARTS = 256
"""``2 * x + 1`` is 2 in float32 before `x` is 0.5: the arithmetic is exact for numbers of few digits."""
_UNITS = (1, 4, 16)
"""By how many roundings operators are off where a number is tested."""


def threshold_case(subject: Subject) -> Expected | None:
    """What PyTorch gives for it; None if nothing is compared or rounded, or the module does not run on it."""
    numbers = _tried(subject)
    if not numbers:
        return None
    rng = np.random.default_rng([subject.seed, 19])
    case = subject.case(rng, *_SIZE)
    changed = {}
    for spec in _floats(subject):
        array = case.feeds[spec.name].copy()
        # All features of a step, which the module may add up.
        places = array.reshape(-1, array.shape[-1] if array.ndim > 2 else 1)
        chosen = rng.permutation(len(places))
        for start, number in enumerate(numbers):
            places[chosen[start :: len(numbers) + 1]] = _within(spec, number)
        changed[spec.name] = array
    expected = subject.expect(case.changed("inputs at thresholds", changed))
    if expected is None:
        return None
    calls = expected.calls
    if any(tensor.error for tensor in replay(subject.model, expected).tensors if tensor.output in calls[0].integers):
        calls = with_all_ties(subject.models.float64, expected, calls)
    # Of the values' kind, since these are unusual ones.
    return replace(expected, calls=calls, kind="values")


def _floats(subject: Subject) -> list[InputSpec]:
    return [spec for spec in subject.specs if np.dtype(spec.dtype).kind == "f"]


def _within(spec: InputSpec, numbers: Any) -> Any:
    return numbers if spec.low is None else np.clip(numbers, spec.low, spec.high)


def _constants(subject: Subject) -> Iterator[float]:
    """The floating-point numbers that a file compares with."""
    stored = {name: tensor for name, tensor in stored_tensors(subject.graph) if len(tensor.raw_data) <= 8 * _MOST}
    for node in nodes_of(subject.graph.graph.node):
        for name in node.input if node.op_type in _COMPARISONS else ():
            if name in stored and (array := numpy_helper.to_array(stored[name])).dtype.kind == "f":
                yield from array[np.isfinite(array)].reshape(-1).tolist()


def _tried(subject: Subject) -> list[float]:
    """A file's constants, and numbers on both sides of a change and beside it, if no rounding of operators decides."""
    names = [spec.name for spec in _floats(subject)]
    axes = next((axes for size in (BATCH, TIME) if (axes := _axes(subject, names, size))), {})
    steps = 2 if axes == _axes(subject, names, BATCH) else _ROWS
    large = most_entries(subject.specs, subject.sizes(_ROWS, steps)) > _MOST_ENTRIES
    if large or subject.models.float64.weights * _ROWS * (steps + subject.extra_steps) * _RUNS > MOST_WORK:
        return []
    case = subject.case(np.random.default_rng([subject.seed, 23]), _ROWS, steps)
    rows = min((_ROWS, *(case.feeds[name].shape[axis] for name, axis in axes.items()))) if axes else 1

    def decided(run: ModuleRun, numbers: np.ndarray, units: int = 0, seed: int = 0) -> list[bytes]:
        feeds = dict(case.feeds)
        for spec in _floats(subject):
            if not axes or spec.name in axes:
                array = feeds[spec.name] = feeds[spec.name].copy()
                filled = np.moveaxis(array, axes[spec.name], 0)[:rows] if axes else array[None]
                filled[:] = _within(spec, numbers).reshape(-1, *(1,) * (filled.ndim - 1))
        return _by_row(run.decisions(feeds, units * NATIVE_EPSILON[subject.dtype], seed), rows)

    exact = subject.models.float64
    own = exact if subject.dtype == "float64" else subject.models.native
    ends = _ENDS[np.linspace(0, _ROWS, rows + 1).astype(int)].astype(subject.dtype)
    low, high = ends[:-1], ends[1:]
    try:
        before = decided(own, low)
        changes = _unequal(before, decided(own, high))
        for _ in range(int(-math.log2(EPSILON[subject.dtype])) + _FINER if changes.any() else 0):
            middle = np.asarray(low + (high - low) / 2, subject.dtype)
            if ((middle == low) | (middle == high))[changes].all():
                break
            other = _unequal(before, decided(own, middle))
            low, high = np.where(other, low, middle), np.where(other, middle, high)
        beside = np.round(high.astype(np.float64) * _PARTS) / _PARTS + 0.0
        found = [*itertools.islice(_constants(subject), _MOST), *np.stack([low, high, beside])[:, changes].reshape(-1)]
        numbers = np.array(list(dict.fromkeys(found)), subject.dtype)
        kept: list[float] = []
        for start in range(0, len(numbers), rows):
            some = np.resize(numbers[start : start + rows], rows)
            right, moved = decided(own, some), np.zeros(rows, bool)
            for seed, units in enumerate(_UNITS):
                moved |= _unequal(right, decided(exact, some, units, seed))
            kept += some[~moved].tolist()
    except ExportError:
        return []
    return list(dict.fromkeys(kept))


def _axes(subject: Subject, names: Sequence[str], size: int) -> dict[str, int]:
    return {name: axis for name, axis in axes_of_size(subject.model, subject.specs, size).items() if name in names}


def _by_row(found: Iterable[np.ndarray], rows: int) -> list[bytes]:
    """The numbers of each row: a part of the first axis that has a part for each row, or all without one."""
    parts: list[list[bytes]] = [[] for _ in range(rows)]
    for array in (each + 0.0 for each in found):  # -0 is 0
        axis = next((axis for axis, size in enumerate(array.shape) if size and size % rows == 0), None)
        own = [array] * rows if axis is None else np.split(array, rows, axis)
        for part, one in zip(parts, own, strict=True):
            part.append(one.tobytes())
    return list(map(b"".join, parts))


def _unequal(first: Sequence[bytes], second: Sequence[bytes]) -> np.ndarray:
    return np.array([one != other for one, other in zip(first, second, strict=True)])
