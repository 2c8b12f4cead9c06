"""Tries a NaN and an infinity in one row of an input: the file's other rows must not change, as PyTorch's do not.

In the same row PyTorch propagates a NaN, or the module handles it (``nan_to_num``, ``isnan``, ``where``).  A file is
wrong if its number differs where PyTorch's is finite.  If PyTorch returns NaN and the file a number, as kernels that
compare do (MaxPool's), or the other way round, a note says so.  There is no note on a NaN that ONNX Runtime's recurrent
operators hide, since every run of the file warns about that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError, RunError
from ..input_spec import unbounded_inputs
from ..runtime import Model
from .cases import Case
from .comparison import Verification
from .expected import Arrays, Expected
from .results import CaseResult
from .runtimes import engine_of

_MOST_INPUTS = 2
"""The most inputs that are tried."""
_NAMES = {"nan": "a NaN", "inf": "an infinity"}


@dataclass(frozen=True)
class Probe:
    """A case with a number that is not finite in a row of an input, and PyTorch's outputs.

    Attributes:
        what: the number in words.
        name: the input's name.
        row: the row; None if the input has no batch axis.
        expected: PyTorch's outputs.
        hidden: whether the file has an operator that may hide a NaN in its input.
    """

    what: str
    name: str
    row: int | None
    expected: Expected
    hidden: bool


_Special = tuple[str, str, int | None, Case]
"""The number, the input and the row of a `Probe`, and its inputs."""


def probes(verification: Verification) -> Iterator[Probe]:
    """Make the probes, for inputs without a range, and if the module itself runs on them.

    They are only for ONNX Runtime on the CPU, since it is not known how other kernels handle a NaN.
    """
    if verification.model.provider == "cpu" and engine_of(verification.model) is None:
        for what, name, row, case in _special_cases(verification):
            if (probed := verification.probed(case)) is not None:
                yield Probe(what, name, row, *probed)


def _special_cases(verification: Verification) -> Iterator[_Special]:
    """A passing case with a NaN at either of two adjacent places in a row, an infinity, and a NaN in the padding.

    A kernel that compares may notice a NaN only in the second of two numbers.
    """
    names = [spec.name for spec in verification.specs if isinstance(spec.high, str)]
    expected = _right_case(verification, names)
    if expected is None:
        return
    case = Case(expected.label, expected.calls[0].feeds)
    batch_axes, time_axes = expected.batch_axes, expected.time_axes
    lengths = next((case.feeds[name] for name in names if name in case.feeds), None)
    inputs = [name for name in unbounded_inputs(verification.specs) if name in case.feeds and case.feeds[name].size]
    for name in inputs[:_MOST_INPUTS]:
        array, batch, time = case.feeds[name], batch_axes.get(name), time_axes.get(name)
        row = None if batch is None else min(1, array.shape[batch] - 1)
        middle = 0 if time is None else array.shape[time] // 2
        for number, step in ((math.nan, middle), (math.nan, max(middle - 1, 0)), (math.inf, middle)):
            yield _special(case, name, number, {batch: row or 0, time: step}, row)
        if lengths is None or batch is None or time is None or lengths.shape != (array.shape[batch],):
            continue
        shortest = int(lengths.argmin())
        if lengths[shortest] < array.shape[time]:
            yield _special(case, name, math.nan, {batch: shortest, time: array.shape[time] - 1}, shortest)


def _right_case(verification: Verification, lengths: Sequence[str]) -> Expected | None:
    """The first case that passed; preferably without jumps, with several rows and steps, and with lengths."""

    def suits(expected: Expected) -> tuple[bool, ...]:
        feeds = expected.calls[0].feeds
        steps = [feeds[name].shape[axis] for name, axis in expected.time_axes.items() if name in feeds]
        steady = not any(call.jumps for call in expected.calls)  # they are not looked for again
        return steady, expected.batch > 1, max(steps, default=0) > 3, not feeds.keys().isdisjoint(lengths)

    right = [one for one, result in verification.pairs if one.kind == "whole" and result.passed]
    return max(right, key=suits, default=None)


def _special(case: Case, name: str, number: float, where: Mapping[int | None, int], row: int | None) -> _Special:
    array = case.feeds[name].copy()
    place = tuple(where.get(axis, 0) for axis in range(array.ndim))
    array[place] = number
    what = _NAMES[str(number)]
    label = f"{what} at {name}[{', '.join(map(str, place))}]"
    return what, name, row, case.changed(label, {name: array})


def special_results(model: Model, probes: Iterable[Probe]) -> tuple[list[CaseResult], list[str]]:
    """The results of probes on which the file is wrong, and notes on others, such as those in which it hides a NaN."""
    failed: list[CaseResult] = []
    notes: dict[str, None] = {}
    for probe in probes:
        expected = probe.expected
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # which says that the input has a NaN
                found = expected.compared(model.run(expected.calls[0].feeds))
        except (InputError, RunError) as error:
            notes[f"with {probe.what} in {probe.name}, the file fails: {error}"] = None
            continue
        parts = [_of_other_rows(probe, found)]
        if not probe.hidden:
            parts.append(_where_finite(expected, found))
            what = f"with {probe.what} in {probe.name}, PyTorch gives"
            if names := _where(np.isnan, np.isfinite, expected, found):
                notes[f"{what} NaN and the file numbers: {', '.join(names)}; look for it before a run"] = None
            if names := _where(np.isfinite, np.isnan, expected, found):
                notes[f"{what} numbers and the file NaN: {', '.join(names)}"] = None
        results = [part.judge([numbers]) for part, numbers in parts if part.calls[0].reference]
        failed += [result for result in results if not (result.passed or result.inconclusive)]
    return failed, list(notes)


def _of_other_rows(probe: Probe, found: Arrays) -> tuple[Expected, dict[str, np.ndarray]]:
    """The outputs without the probe's row, if PyTorch's are finite."""
    expected, row = probe.expected, probe.row
    (call,) = expected.calls
    axes = {} if row is None else expected.batch_axes

    def others(arrays: Arrays) -> dict[str, np.ndarray]:
        return {
            name: np.delete(array, row, axes[name])
            for name, array in arrays.items()
            if name in axes and array.ndim > axes[name] and row is not None and array.shape[axes[name]] > row
        }

    native, reference = others(call.native), others(call.reference)
    names = [name for name, array in reference.items() if np.isfinite(array).all() and np.isfinite(native[name]).all()]
    part = replace(call, native={n: native[n] for n in names}, reference={n: reference[n] for n in names})
    label = f"{expected.label}, the other rows"
    return replace(expected, label=label, calls=(part,)), {n: array for n, array in others(found).items() if n in names}


def _where_finite(expected: Expected, found: Arrays) -> tuple[Expected, dict[str, np.ndarray]]:
    """The outputs, with PyTorch's numbers in the places where not all are finite."""
    (call,) = expected.calls
    names = _floats(expected, found)
    part = replace(call, reference={name: call.reference[name] for name in names})
    numbers = {
        name: np.where(
            np.isfinite(call.reference[name]) & np.isfinite(call.native[name]) & np.isfinite(found[name]),
            found[name],
            call.reference[name],
        ).astype(found[name].dtype)
        for name in names
    }
    return replace(expected, calls=(part,)), numbers


def _where(
    theirs: Callable[[np.ndarray], np.ndarray],
    own: Callable[[np.ndarray], np.ndarray],
    expected: Expected,
    found: Arrays,
) -> list[str]:
    """The outputs with entries that are of one kind in both of PyTorch's runs, but of another kind in the file."""
    (call,) = expected.calls
    return [
        name
        for name in _floats(expected, found)
        if (own(found[name]) & theirs(call.reference[name]) & theirs(call.native[name])).any()
    ]


def _floats(expected: Expected, found: Arrays) -> list[str]:
    """The outputs with float numbers; integers that depend on a NaN, such as its place in a sort, are not compared."""
    floats = {name: array for name, array in expected.calls[0].reference.items() if array.dtype.kind == "f"}
    return [name for name, array in floats.items() if name in found and found[name].shape == array.shape]
