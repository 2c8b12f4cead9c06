"""Defines the cases on which a file is compared, and derives cases from random ones: scaled, zero, large values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..input_spec import InputSpec, axes
from .expected import Arrays, halves

SHAPES = ((1, 1), (3, 1), (3, 2), (1, 7), (3, 7), (5, 12))
"""(batch, time): both 1; one of them 1; the shortest with an order in time; and larger ones.

They reveal any size that is fixed in the file.
"""
FEW_AND_MANY = ((1, 1), (5, 9))
"""(batch, time) at which every kind of values is compared, besides a usual size."""
FEW_AND_SOME = ((1, 1), (4, 6))
"""The same for a model whose calls take long."""
_LARGE, HUGE, HUGE_HALF = 10.0, 1000.0, 100.0
"""Factors that make random values large and huge, and the largest one for float16, whose numbers end at 65504."""
_SMALL, _TINY, _TINIEST = 1e-2, 1e-7, 1e-13
"""Factors that make random values small and tiny; half precision cannot represent the tiny ones.

``normalize`` divides a vector by its norm, or by 1e-12 if that is larger.
"""
_SAMPLE, _FAR = 2, 100
"""The bytes of integers that are samples, such as of sound, and may be any; how far from 0 others are tried."""
_OFFSET = 20.0
"""The mean of values that are not normalized, such as degrees."""


@dataclass(frozen=True)
class Case:
    """One comparison's inputs and states by the file's names; states that are left out start as in the file.

    `kind` and `chunkings` are those of `expected.Expected`.
    """

    label: str
    feeds: Arrays
    kind: str = "whole"
    chunkings: tuple[tuple[int, ...], ...] = ()

    def changed(self, label: str, feeds: Arrays, kind: str | None = None) -> Case:
        """The same case with some other inputs or states; `label` is added to its own."""
        return replace(self, label=f"{self.label}, {label}", feeds={**self.feeds, **feeds}, kind=kind or self.kind)

    def multiplied(self, label: str, factors: Mapping[str, float | np.ndarray]) -> Case:
        """The same case with some inputs and states multiplied by a factor each."""
        scaled = {name: self.feeds[name] * factor for name, factor in factors.items()}
        return self.changed(label, {name: array.astype(self.feeds[name].dtype) for name, array in scaled.items()})


def value_cases(
    case: Case,
    specs: Sequence[InputSpec],
    states: Sequence[str],
    gain: float,
    dtype: str,
    largest: Mapping[str, float] | None = None,
    batch_axes: Mapping[str, int] | None = None,
    time_axes: Mapping[str, int] | None = None,
) -> Iterator[Case]:
    """A random case with other inputs and states: zero, small, from 0 to 1, of one sign, large, at the end of a range.

    Args:
        case: the random case.
        specs: the inputs' specs; inputs with a range stay in it.
        states: the names of the inputs that are states.
        gain: the factor that inputs of a model with small weights need; a huge input is 30 times that, so that
            gates exceed a limit at which an operator may clip them.
        dtype: the model's.
        largest: the largest factor of some inputs.
        batch_axes: the batch axis of the inputs and states that have one.
        time_axes: the time axis of the inputs that have one.
    """
    feeds = case.feeds
    ranged = {spec.name: spec for spec in specs if spec.low is not None}
    floats = [name for name, array in feeds.items() if array.dtype.kind == "f" and name not in ranged]
    inputs = [name for name in floats if name not in states]
    carried = [name for name in floats if name in states]
    most = HUGE_HALF if dtype == "float16" else HUGE
    large, huge = min(_LARGE, most), max(most, 30 * gain)

    def scaled(names: Sequence[str], factor: float, sign: int) -> dict[str, np.ndarray]:
        limits = largest or {}
        return {name: _scaled(feeds[name], min(factor, limits.get(name, factor)), sign) for name in names}

    changes = (
        ("all zeros", floats, 0.0, 0),
        ("input zeros", inputs if carried else [], 0.0, 0),
        ("states zeros", carried, 0.0, 0),
        ("all positive", floats, 1.0, 1),
        ("all negative", floats, 1.0, -1),
        ("large input", inputs, large, 0),
        ("huge input", inputs, huge, 0),
        ("huge positive input", inputs, huge, 1),
        ("large states", carried, large, 0),
        ("large positive states", carried, large, 1),
        ("large negative states", carried, large, -1),
        ("huge states", carried, most, 0),
        ("small input", inputs, _SMALL, 0),
        ("small states", carried, _SMALL, 0),
        ("every other state zeros", carried[::2] if len(carried) > 1 else [], 0.0, 0),
        ("the other states zeros", carried[1::2], 0.0, 0),
    )
    for label, names, factor, sign in changes:
        if names:
            yield case.changed(label, scaled(names, factor, sign), "values")
    for label, positive, negative in _opposite(inputs, carried):
        yield case.changed(label, {**scaled(positive, 1.0, 1), **scaled(negative, 1.0, -1)}, "values")
    if inputs:
        # If code tests the range of its data, such as of pictures, most exporters fix the outcome in the file.
        # These are usual numbers, of which integers are compared, too.
        yield case.changed("input from 0 to 1", {name: np.abs(feeds[name]) % 1 for name in inputs})
    moved: tuple[tuple[str, Mapping[str, np.ndarray]], ...] = (
        (f"input near {_OFFSET:g}", {name: feeds[name] + _OFFSET for name in inputs}),
        (f"input near -{_OFFSET:g}", {name: feeds[name] - _OFFSET for name in inputs}),
        (
            "tiny input",
            {name: _tiny(feeds[name], (batch_axes or {}).get(name)) for name in inputs if dtype != "float16"},
        ),
        ("some input -0 or subnormal", {name: _with_least(feeds[name]) for name in inputs}),
        # Rounding and comparisons depend on these, and random numbers never hit them.
        ("input whole numbers and halves", {name: halves(feeds[name]) for name in inputs}),
        # A module may take these for padding, and a stream that starts beside others has such states.
        ("zeros at the end", _with_zeros({name: feeds[name] for name in inputs}, time_axes or {}, -1)),
        ("zeros after the first step", _with_zeros({name: feeds[name] for name in inputs}, time_axes or {}, 1)),
        ("states of a row zeros", _with_zeros({name: feeds[name] for name in carried}, batch_axes or {}, -1)),
    )
    for label, arrays in moved:
        if arrays:
            changed = {name: np.asarray(array, feeds[name].dtype) for name, array in arrays.items()}
            yield case.changed(label, changed, "values")
    for label, end in (("least", "low"), ("largest", "high")):
        if changed := _at_end(feeds, ranged if axes(specs) else {}, end):
            yield case.changed(f"{label} of {', '.join(changed)}", changed, "values")


def _at_end(feeds: Arrays, ranged: Mapping[str, InputSpec], end: str) -> dict[str, np.ndarray]:
    """The inputs with a range, all at its `end`: "low" or "high"."""
    limits = {name: getattr(spec, end) for name, spec in ranged.items() if name in feeds}
    changed = {name: np.full_like(feeds[name], limit) for name, limit in limits.items() if not isinstance(limit, str)}
    for name, array in changed.items():
        if isinstance(ranged[name].high, str):  # lengths, the longest of which fills the axis
            array.reshape(-1)[:1] = feeds[name].max(initial=0)
    return changed


def _opposite(inputs: list[str], states: list[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Inputs and states of opposite signs: a label, those that are positive, and those that are negative."""
    for label, positive, negative in (
        ("positive input, negative states", inputs, states),
        ("negative input, positive states", states, inputs),
        ("every other input negative", inputs[::2], inputs[1::2]),
        ("the other inputs negative", inputs[1::2], inputs[::2]),
    ):
        if positive and negative:
            yield label, positive, negative


def _scaled(array: np.ndarray, factor: float, sign: int) -> np.ndarray:
    signed = sign * np.abs(array) if sign else array
    # Adding 0 turns -0 into 0.
    return np.asarray(signed * np.float64(factor) + 0.0, array.dtype)


def shorter_cases(case: Case, lengths: Sequence[str]) -> Iterator[Case]:
    """A random case with no sequence as long as the time axis, and one with all of half its length."""
    drawn = {name: case.feeds[name] for name in lengths}
    yield case.changed("none of full length", {name: np.maximum(array - 1, 1) for name, array in drawn.items()})
    halves = {name: np.full_like(array, max(array.max(initial=1) // 2, 1)) for name, array in drawn.items()}
    yield case.changed("all of half the length", halves)


def mask_cases(case: Case) -> Iterator[Case]:
    """A random case with its bools all true, all false, and with the true ones of a row first or last, like padding.

    `input_spec.draw` gives no row of equal bools.  A module need not run on these.
    """
    masks = {name: array for name, array in case.feeds.items() if array.dtype.kind == "b" and array.ndim}
    changes = (
        ("all true", np.ones_like),
        ("all false", np.zeros_like),
        ("true first", lambda array: np.sort(array, axis=-1)[..., ::-1].copy()),
        ("true last", lambda array: np.sort(array, axis=-1)),
    )
    for label, change in changes if masks else ():
        changed = {name: change(array) for name, array in masks.items()}
        yield case.changed(f"{', '.join(masks)} {label}", changed, "values")


def integer_cases(
    case: Case,
    names: Sequence[str],
    time: int,
    rng: np.random.Generator,
    accepts: Callable[[Arrays], bool] = lambda _: True,
) -> Iterator[Case]:
    """A random case with some integers as numbers of steps, and as samples or numbers of either sign.

    A module need not run on these, which `accepts` says.  One that looks up ``ids.clamp(min=0)`` only takes numbers
    beyond one end of its range.
    """
    for name in names:
        array = case.feeds[name]
        ends = np.iinfo(array.dtype)
        least, most = (ends.min, ends.max) if array.dtype.itemsize <= _SAMPLE else (max(ends.min, -_FAR), _FAR)
        own = int(array.min(initial=most)), int(array.max(initial=least))

        def drawn(low: int, high: int, name: str = name, array: np.ndarray = array) -> Iterator[Case]:
            numbers = np.asarray(rng.integers(low, high, array.shape, array.dtype, endpoint=True), array.dtype)
            changed = case.changed(f"{name} of {low} to {high}", {name: numbers}, "values")
            if accepts(changed.feeds):
                yield changed

        yield from drawn(0, time)
        both = list(drawn(least, most))
        yield from both
        for low, high in () if both else ((least, own[1]), (own[0], most)):
            if low < high:
                yield from drawn(low, high)


def _tiny(array: np.ndarray, axis: int | None) -> np.ndarray:
    """An array of tiny numbers, and of even smaller ones in every other row."""
    found = array * _TINY
    if axis is not None:
        np.moveaxis(found, axis, 0)[1::2] *= _TINIEST / _TINY
    return found


def _with_least(array: np.ndarray) -> np.ndarray:
    """An array with -0, whose sign some functions read, and numbers so small that a kernel may flush them to 0."""
    found = array.copy()
    least = np.finfo(array.dtype).tiny / 16
    for start, number in enumerate((-0.0, least, -least)):
        found.reshape(-1)[start::5] = number
    return found


def _with_zeros(arrays: Arrays, axes: Mapping[str, int], at: int) -> dict[str, np.ndarray]:
    """The arrays with more than one entry along their axis, with one entry set to zeros."""
    found = {}
    for name, axis in axes.items():
        if name in arrays and arrays[name].shape[axis] > 1:
            found[name] = arrays[name].copy()
            np.moveaxis(found[name], axis, 0)[at] = 0
    return found


def compositions(total: int) -> Iterator[tuple[int, ...]]:
    """Every way to cut `total` steps into chunks, 2^(total - 1) of them."""
    if total == 0:
        yield ()
    for first in range(total, 0, -1):
        for rest in compositions(total - first):
            yield (first, *rest)
