"""Further cases for mutants that the others do not reject, each compared with the right file as well.

They are made one after the other, only while mutants survive.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import LSTMOnnxError
from ..criterion import magnitude
from ..expected import Expected, largest_relative_errors
from ..mutants import Target, folder_of, opened
from ..replay import replay
from ..tolerances import EPSILON
from .amplify import SHAPES, amplified_target
from .widened import widened_graph, widened_inputs, widened_module, widened_spec

if TYPE_CHECKING:
    from .verification import ModuleVerification

_SHAPES = ((32, 7), (16, 2), (5, 24))
"""The (batch, time) of the cases."""
_LONGER = ((4, 112), (2, 384))
"""The same for a module whose recurrent layers get a step for many of its inputs' steps."""
_LOUDER = 4.0
"""The factor of the inputs in some of the cases."""
_SMALL = 2.0**-10
"""Outputs below it are small; those of mutants were within 32 roundings of 1 where outputs were below 2e-6."""
_LEAST_GAIN = 2.0
"""The gain of weights from which they are amplified."""


def harder_targets(verification: ModuleVerification) -> Iterator[Target]:
    """The file with other inputs and with amplified weights, of a half-precision file also all of these in float32.

    Where outputs are small, all cases come relative to them as well, if the file passes the usual ones so: the floor of
    the criterion, one rounding of 1, would let mutants pass.
    """
    usual = _relative_to_small_outputs(Target(verification.model, verification.graph, verification.expected))
    small = usual is not None and all(replay(usual.model, case).passed for case in usual.expected)
    if usual is not None and small:
        yield usual
    for target in _harder_targets(verification):
        relative = _relative_to_small_outputs(target) if small else None
        yield from (target,) if relative is None else (relative, target)


def _relative_to_small_outputs(target: Target) -> Target | None:
    """A target whose floor for each small output is one rounding of its largest number; None where none is small."""
    largest: dict[str, float] = {}
    for case, call in ((one, call) for one in target.expected for call in one.calls):
        for name, reference in call.reference.items():
            tiny = float(np.finfo(case.dtype).tiny) / EPSILON[case.dtype]
            largest[name] = max(largest.get(name, tiny), magnitude(reference))
    scales = {name: size for name, size in largest.items() if size < _SMALL}
    if not scales:
        return None
    expected = [replace(one, scales={**one.scales, **scales}) for one in target.expected]
    return _labelled(replace(target, expected=expected), "relative to small outputs,")


def _harder_targets(verification: ModuleVerification) -> Iterator[Target]:
    for shapes in (_SHAPES, _LONGER):
        yield Target(verification.model, verification.graph, _more_cases(verification, shapes))
        own = SHAPES if shapes is _SHAPES else shapes
        for what, dense in (("recurrent", False), ("all", True)):
            target = amplified_target(verification, least=_LEAST_GAIN, dense=dense, complete=False, shapes=own)
            if target is not None:
                yield _labelled(target, what)
    if verification.dtype == "float16":
        widened = _widened(verification)
        if widened is not None:
            usual = (widened.expect(case) for case in widened.cases)
            cases = [expected for expected in usual if expected is not None and not expected.inconclusive]
            usual_target = Target(widened.model, widened.graph, cases)
            for target in itertools.chain((usual_target,), harder_targets(widened)):
                yield _labelled(target, "in float32,")


def _labelled(target: Target, prefix: str) -> Target:
    """Other labels for its cases, which a report has beside the usual ones."""
    expected = [replace(one, label=f"{prefix} {one.label}") for one in target.expected]
    return replace(target, expected=expected)


def _more_cases(verification: ModuleVerification, shapes: Sequence[tuple[int, int]]) -> list[Expected]:
    rng = np.random.default_rng([verification.seed, 5])
    cases = []
    for batch, time in shapes:
        drawn = verification.case(rng, batch, time)
        cases.append(replace(drawn, label=f"{drawn.label}, once more"))
        if verification.unbounded_inputs:
            cases.append(drawn.multiplied("louder", dict.fromkeys(verification.unbounded_inputs, _LOUDER)))
    expected = [found for found in map(verification.expect, cases) if found is not None and not found.inconclusive]
    least = largest_relative_errors(expected)
    return [replace(found, least=least) for found in expected]


def _widened(verification: ModuleVerification) -> ModuleVerification | None:
    """The verification of the file in float32; None where that cannot be opened or run."""
    graph = widened_graph(verification.graph, folder_of(verification.model))
    try:
        found = type(verification)(
            opened(verification.model, graph),
            widened_module(verification.module),
            seed=verification.seed,
            inputs=tuple(map(widened_spec, verification.declared)),
            example_inputs=widened_inputs(verification.example_inputs),
        )
    except LSTMOnnxError:
        return None
    found.graph = graph
    return found
