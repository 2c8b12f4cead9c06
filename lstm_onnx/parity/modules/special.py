"""What a module gives where an input has a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..special_values import Probe, special_cases
from .verification import ModuleVerification


def module_probes(verification: ModuleVerification) -> Iterator[Probe]:
    """Of the inputs without a range, and where the module itself runs."""
    native, hides = verification.models.native, verification.model.hides_nan
    for special in special_cases(verification, verification.unbounded_inputs):
        expected = verification.expect(special.case)
        if expected is not None:
            expected = replace(expected, least=verification.expected[0].least)
            yield Probe(special, expected, hides and not (native.sites and native.has_finite_states))
