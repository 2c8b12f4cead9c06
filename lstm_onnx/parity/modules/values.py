"""Makes cases with special values: zero, of one sign or large, each at several sizes.

A file may be wrong for such values only at some sizes, such as where all numbers are negative and there are many steps,
so each kind of values is compared at few and at many rows and steps.  Integers that are the same in all other cases,
such as whether a score is above a threshold, are tested with values for which they differ.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...errors import ExportError
from ...input_spec import axes, most_entries, unbounded_inputs
from ..cases import FEW_AND_MANY, FEW_AND_SOME, Case, integer_cases, mask_cases, value_cases
from ..expected import Expected, constant_outputs
from ..sizes import MOST_NUMBERS, MOST_WORK
from .inputs import BATCH, TIME, axes_of_size
from .sizes import is_conclusive, of_some_features
from .subject import Subject

_MOST_ENTRIES = 2**16
"""If an input, such as of pictures, has more elements than this, cases do not have many rows and steps."""
_KINDS = 20
"""Roughly the number of kinds of values."""
_FACTORS = (1.0, 1.0, 1.0, 3.0, 10.0, 100.0)
"""The factors of inputs that are tried to change integers that are the same elsewhere."""
_OFFSETS = (1.0, -1.0, 5.0, -5.0)
"""The means of such inputs."""
_OTHER_CASES = 2
"""The number of cases in which such an integer should differ."""


def cases_with_values(subject: Subject, rng: np.random.Generator, batch: int, time: int) -> Iterator[Case]:
    """The cases of every kind of values at one size; see `cases.value_cases` and `cases.mask_cases`."""
    specs, states = subject.specs, subject.metadata.states
    case = subject.case(rng, batch, time)
    carried = [*(case.feeds.keys() - {spec.name for spec in specs}), *states]
    axes_of = (axes_of_size(subject.model, specs, size) for size in (BATCH, TIME))
    yield from value_cases(case, specs, carried, subject.input_gain, subject.dtype, None, *axes_of)
    yield from (each for each in mask_cases(case) if subject.accepts(each.feeds))
    yield from integer_cases(case, _open_integers(subject), time, rng, subject.accepts)


def _open_integers(subject: Subject) -> list[str]:
    """The integers whose range only an example shows."""
    known = {spec.name for spec in subject.declared if spec.low is not None}
    return [
        spec.name
        for spec in subject.specs
        if np.dtype(spec.dtype).kind in "iu" and not (isinstance(spec.high, str) or spec.name in known)
    ]


def values_at_other_sizes(subject: Subject, cases: Sequence[Case]) -> Iterator[Expected]:
    """Every kind of values at few and at many rows and steps, except `cases`, as far as the budget allows."""
    if not axes(subject.specs):
        return
    rng = np.random.default_rng([subject.seed, 13])
    seen = {case.label for case in cases}
    for batch, time in _sizes(subject):
        numbers = 0
        for case in cases_with_values(subject, rng, batch, time):
            expected = None if case.label in seen else subject.expect(case)
            if expected is not None and is_conclusive(expected):
                some = of_some_features(expected)
                numbers += sum(array.size for array in some.calls[0].reference.values())
                if numbers > MOST_NUMBERS:
                    break
                yield some


def _sizes(subject: Subject) -> Sequence[tuple[int, int]]:
    """Few rows and steps, and as many as the work allows."""
    batch, time = FEW_AND_MANY[-1]
    cells = batch * time * _KINDS
    large = most_entries(subject.specs, subject.sizes(batch, time)) > _MOST_ENTRIES
    return FEW_AND_SOME if large or subject.models.float64.weights * cells > MOST_WORK else FEW_AND_MANY


def with_other_integers(subject: Subject, found: Sequence[Expected]) -> list[Expected]:
    """Cases in which integers differ that are one number in all that were `found`, as far as some are found."""
    constant = {name: value for name, value in constant_outputs(found).items() if value.dtype.kind in "iub"}
    missing = dict.fromkeys(constant, _OTHER_CASES)
    added: list[Expected] = []
    for case in _candidates(subject) if constant else ():
        expected = _with_integers(subject, case, {name: constant[name] for name in missing})
        if expected is None:
            continue
        added.append(expected)
        for name in missing.keys() & expected.calls[0].reference.keys():
            missing[name] -= bool((expected.calls[0].reference[name] != constant[name]).any())
        missing = {name: count for name, count in missing.items() if count > 0}
        if not missing:
            break
    return added


def _candidates(subject: Subject) -> Iterator[Case]:
    rng = np.random.default_rng([subject.seed, 17])
    names = unbounded_inputs(subject.specs)
    for batch, time in _sizes(subject)[::-1]:
        for factor in _FACTORS:
            yield subject.case(rng, batch, time).multiplied(f"times {factor:g}", dict.fromkeys(names, factor))
        for offset in _OFFSETS if names else ():
            case = subject.case(rng, batch, time)
            moved = {name: np.asarray(case.feeds[name] + offset, case.feeds[name].dtype) for name in names}
            yield case.changed(f"near {offset:g}", moved)
        yield from cases_with_values(subject, rng, batch, time)


def _with_integers(subject: Subject, case: Case, constant: dict[str, np.ndarray]) -> Expected | None:
    """What PyTorch gives if one of the integers differs, and roundings do not change it; else None."""
    with contextlib.suppress(ExportError):
        reference = subject.models.float64(case.feeds)
        if all((reference[name] == value).all() for name, value in constant.items()):
            return None
        expected = subject.expect(replace(case, kind="values"))
        if expected is not None and is_conclusive(expected):
            (call,) = expected.calls
            differ = [
                name
                for name, value in constant.items()
                if ((call.reference[name] != value) & (call.native[name] == call.reference[name])).any()
            ]
            if differ:
                return of_some_features(replace(expected, label=f"{case.label}, where {' and '.join(differ)} differs"))
    return None
