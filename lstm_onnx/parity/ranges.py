"""The sizes and values that a file was compared at: a verdict covers no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..runtime import Model
from .expected import Arrays, Expected
from .report import CaseResult, Range

_AT_SIZES = ("whole", "values", "data", "sweep")
"""Kinds of cases whose sizes are those of a whole call, not of chunks."""
_MOST_VALUES = 2**18
"""The most distinct integers of an input that are recorded."""


@dataclass
class _Found:
    sizes: dict[str, set[int]]
    integers: dict[str, set[int]]
    floats: dict[str, tuple[float, float]]


def ranges_of(model: Model, compared: Iterable[tuple[Expected, CaseResult]]) -> tuple[Range, ...]:
    """The sizes of each open axis and the values of each input in the conclusive cases."""
    found = _Found({}, {}, {})
    for expected, result in compared:
        if result.inconclusive:
            continue
        for call in expected.calls:
            if expected.kind in _AT_SIZES:
                for axis, size in _sizes(model, expected, call.feeds):
                    found.sizes.setdefault(axis, set()).add(size)
            _note_values(found, call.feeds)
    return tuple(_ranges(found))


def _sizes(model: Model, expected: Expected, feeds: Arrays) -> Iterator[tuple[str, int]]:
    """The sizes of the open axes, by the file's names, or by their roles where the file names none."""
    for name, array in feeds.items():
        info = model.inputs.get(name)
        for axis, dim in enumerate(() if info is None else info.shape[: array.ndim]):
            roles = {"batch": expected.batch_axes, "time": expected.time_axes}
            role = next((role for role, axes in roles.items() if axes.get(name) == axis), None)
            label = dim if isinstance(dim, str) and dim.isidentifier() else role if dim is None else None
            if label is not None:
                yield label, array.shape[axis]


def _note_values(found: _Found, feeds: Mapping[str, np.ndarray]) -> None:
    for name, array in feeds.items():
        if array.dtype.kind in "iu":
            integers = found.integers.setdefault(name, set())
            if len(integers) < _MOST_VALUES:
                integers.update(np.unique(array).tolist())
        elif array.dtype.kind == "f":
            finite = array[np.isfinite(array)].astype(np.float64)
            least, largest = found.floats.get(name, (np.inf, -np.inf))
            least, largest = min(least, finite.min(initial=np.inf)), max(largest, finite.max(initial=-np.inf))
            if least <= largest:
                found.floats[name] = float(least), float(largest)


def _ranges(found: _Found) -> Iterator[Range]:
    for name, sizes in found.sizes.items():
        yield Range(name, "sizes", min(sizes), max(sizes), tuple(sorted(sizes)))
    for name, integers in found.integers.items():
        if integers:
            yield Range(name, "integers", min(integers), max(integers), tuple(sorted(integers)))
    for name, (least, largest) in found.floats.items():
        yield Range(name, "numbers", least, largest)
