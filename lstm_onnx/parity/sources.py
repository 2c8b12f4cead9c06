"""A file beside its source: a configured model, or what a callable makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from ..exporter.sources.source import LSTMSource, Source
from ..runtime import Model
from . import LSTMVerification, ModuleVerification, make_report, verification_of
from .report import CaseResult, ParityReport

Verification: TypeAlias = LSTMVerification | ModuleVerification


def verification_of_source(
    source: Source, model: Model, *, seed: int = 0, data: Sequence[Mapping[str, Any]] = ()
) -> Verification:
    """What compares `model` with `source`, whose description of its inputs counts more than the file's."""
    inputs = () if isinstance(source, LSTMSource) else source.inputs
    return verification_of(model, source.module(), seed=seed, inputs=inputs, data=data)


def report_on_source(
    source: Source,
    verification: Verification,
    results: Iterable[CaseResult],
    *,
    file: str | None = None,
    mutants: str = "quick",
) -> ParityReport:
    """As `make_report`; a file without the lengths that its source asks for is not in parity."""
    found = list(results)
    if source.options.lengths and "lengths" not in verification.model.inputs:
        problem = f"{source.name} asks for the input lengths, and the file has none"
        found.append(CaseResult("lengths", error=problem))
    return make_report(verification, found, source=source.name, file=file, mutants=mutants)
