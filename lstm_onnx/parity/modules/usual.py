"""Makes the usual cases of a module: few and many rows and steps, with and without states and lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...input_spec import axes, unbounded_inputs
from ..cases import SHAPES, Case, shorter_cases
from ..tolerances import LEAST_INPUT_GAIN
from .subject import Subject
from .values import cases_with_values

_EVEN = (12, 24)
"""Sizes with many divisors."""


def usual_cases(subject: Subject) -> Iterator[Case]:
    """The example, if there is one, and drawn cases."""
    if subject.example_inputs is not None:
        yield subject.accepted
    rng = np.random.default_rng(subject.seed)
    open_axes = axes(subject.specs)
    shapes = SHAPES if open_axes else SHAPES[:1]
    seen = []
    for batch, time in shapes:
        case = subject.case(rng, batch, time)
        if case.label not in seen:  # limits of the axes can make two shapes equal
            seen.append(case.label)
            yield case
    if subject.metadata.states:
        yield subject.case(rng, *shapes[-1], states=False)
    lengths = [spec.name for spec in subject.specs if isinstance(spec.high, str)]
    if lengths and open_axes:
        for batch in (3, 1):
            yield from shorter_cases(subject.case(rng, batch, 7), lengths)
    inputs = unbounded_inputs(subject.specs)
    if subject.input_gain > LEAST_INPUT_GAIN and inputs:
        yield subject.case(rng, 3, 7).multiplied("amplified", dict.fromkeys(inputs, subject.input_gain))
    yield from cases_with_values(subject, rng, 3, 4)


def even_cases(subject: Subject) -> Iterator[Case]:
    """Cases with all axes grown together: a module may only take equal sizes, or whole groups of rows."""
    rng = np.random.default_rng([subject.seed, 11])
    names = list(axes(subject.specs))
    doubled = {name: 2 * subject.accepted_sizes.get(name, _EVEN[0]) for name in names}
    for sizes in (*(dict.fromkeys(names, size) for size in _EVEN), doubled) if len(names) > 1 else ():
        yield subject.case_at(rng, {name: subject.axes.within(name, size) for name, size in sizes.items()})
