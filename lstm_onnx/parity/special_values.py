"""A NaN and an infinity in one row of an input: PyTorch's other rows stay as they are, and a file's must, too.

In its own row PyTorch carries a NaN on, or the module handles it (``nan_to_num``, ``isnan``, ``where``).  A file that
gives another number where PyTorch's is finite is wrong.  Where PyTorch gives NaN and the file a number, as kernels do
that compare (MaxPool's), or the other way round, a note says so.  Of what ONNX Runtime's recurrent operators hide there
is none: every run of the file warns of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError, RunError
from ..runtime import Model
from .cases import Case
from .comparison import Verification
from .expected import Arrays, Expected
from .lstm.verification import LSTMVerification, expectations
from .modules.verification import ModuleVerification
from .report import CaseResult
from .runtimes import engine_of

_MOST_INPUTS = 2
"""The inputs that are tried."""
_NAMES = {"nan": "a NaN", "inf": "an infinity"}


@dataclass(frozen=True)
class Special:
    """A case with a number that is not finite in a row of an input.

    `what` and `name` are the number's and the input's; `row` is None where the input has no batch axis.
    """

    case: Case
    what: str
    name: str
    row: int | None


@dataclass(frozen=True)
class Probe:
    """Such a case, what PyTorch gives in it, and whether the file has an operator that hides what reached it."""

    special: Special
    expected: Expected
    hidden: bool


def special_cases(verification: Verification, inputs: Sequence[str]) -> Iterator[Special]:
    """A right case with a NaN at one of two neighbours in a row, with an infinity, and with a NaN in the padding.

    A kernel that compares may see the second of two numbers and not the first.
    """
    names = [spec.name for spec in verification.specs if isinstance(spec.high, str)]
    expected = _right_case(verification, names)
    if expected is None:
        return
    case = Case(expected.label, expected.calls[0].feeds)
    batch_axes, time_axes = expected.batch_axes, expected.time_axes
    lengths = next((case.feeds[name] for name in names if name in case.feeds), None)
    for name in [name for name in inputs if name in case.feeds and case.feeds[name].size][:_MOST_INPUTS]:
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


def probes(verification: Verification) -> Iterator[Probe]:
    """What is tried of an nn.LSTM or another module; nothing of a file that generates.

    And nothing elsewhere than in ONNX Runtime on the CPU: what other kernels make of a NaN is not known.
    """
    if verification.model.provider != "cpu" or engine_of(verification.model) is not None:
        return
    if isinstance(verification, LSTMVerification):
        yield from _lstm_probes(verification)
    elif isinstance(verification, ModuleVerification):
        yield from _module_probes(verification)


def _lstm_probes(verification: LSTMVerification) -> Iterator[Probe]:
    for special in special_cases(verification, ["input"]):
        expected = next(expectations(verification.models, verification.spec, special.case))
        states = (expected.calls[0].native[name] for name in ("hn", "cn"))
        finite = all(bool(np.isfinite(state).all()) for state in states)
        yield Probe(special, expected, verification.model.hides_nan and not finite)


def _module_probes(verification: ModuleVerification) -> Iterator[Probe]:
    """Of the inputs without a range, and where the module itself runs."""
    native, hides = verification.models.native, verification.model.hides_nan
    for special in special_cases(verification, verification.unbounded_inputs):
        expected = verification.expect(special.case)
        if expected is not None:
            expected = replace(expected, least=verification.expected[0].least)
            yield Probe(special, expected, hides and not (native.sites and native.has_finite_states))


def _right_case(verification: Verification, lengths: Sequence[str]) -> Expected | None:
    """The first one that passed, of those with several rows and steps and with lengths, as far as there are such."""

    def suits(expected: Expected) -> tuple[bool, ...]:
        feeds = expected.calls[0].feeds
        steps = [feeds[name].shape[axis] for name, axis in expected.time_axes.items() if name in feeds]
        return expected.batch > 1, max(steps, default=0) > 3, not feeds.keys().isdisjoint(lengths)

    right = [one for one, result in verification.pairs if one.kind == "whole" and result.passed]
    return max(right, key=suits, default=None)


def _special(case: Case, name: str, number: float, where: Mapping[int | None, int], row: int | None) -> Special:
    array = case.feeds[name].copy()
    place = tuple(where.get(axis, 0) for axis in range(array.ndim))
    array[place] = number
    what = _NAMES[str(number)]
    label = f"{what} at {name}[{', '.join(map(str, place))}]"
    return Special(case.changed(label, {name: array}), what, name, row)


def special_results(model: Model, probes: Iterable[Probe]) -> tuple[list[CaseResult], list[str]]:
    """The results of those that the file gets wrong, and notes on others, such as those in which it hides a NaN."""
    failed: list[CaseResult] = []
    notes: dict[str, None] = {}
    for probe in probes:
        expected = probe.expected
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # that the input has a NaN
                found = expected.compared(model.run(expected.calls[0].feeds))
        except (InputError, RunError) as error:
            notes[f"with {probe.special.what} in {probe.special.name}, the file fails: {error}"] = None
            continue
        parts = [_of_other_rows(probe, found)]
        if not probe.hidden:
            parts.append(_where_finite(expected, found))
            what = f"with {probe.special.what} in {probe.special.name}, PyTorch gives"
            if names := _where(np.isnan, np.isfinite, expected, found):
                notes[f"{what} NaN and the file numbers: {', '.join(names)}; look for it before a run"] = None
            if names := _where(np.isfinite, np.isnan, expected, found):
                notes[f"{what} numbers and the file NaN: {', '.join(names)}"] = None
        results = [part.judge([numbers]) for part, numbers in parts if part.calls[0].reference]
        failed += [result for result in results if not (result.passed or result.inconclusive)]
    return failed, list(notes)


def _of_other_rows(probe: Probe, found: Arrays) -> tuple[Expected, dict[str, np.ndarray]]:
    """The outputs without the row, as far as those of PyTorch are finite."""
    expected, row = probe.expected, probe.special.row
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
    """The outputs with PyTorch's numbers in the places where not all are finite."""
    (call,) = expected.calls
    names = [name for name in _floats(expected) if name in found and found[name].shape == call.reference[name].shape]
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
    """The outputs with entries that are of one kind in both of PyTorch's runs, and of another in the file."""
    (call,) = expected.calls
    return [
        name
        for name in _floats(expected)
        if name in found
        and found[name].shape == call.reference[name].shape
        and (own(found[name]) & theirs(call.reference[name]) & theirs(call.native[name])).any()
    ]


def _floats(expected: Expected) -> list[str]:
    """Integers of a NaN, such as its place in a sort, are not compared."""
    return [name for name, array in expected.calls[0].reference.items() if array.dtype.kind == "f"]
