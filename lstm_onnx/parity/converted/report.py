"""The report on a file with smaller weights: that on its float32 form, and what was found of the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from ...runtime import Model
from ..expected import Expected
from ..report import ParityReport
from .drift import precision_of
from .results import converted_results


def converted_report(
    report: ParityReport,
    float32: str | os.PathLike[str],
    model: Model,
    expected: Sequence[Expected],
    *,
    mutants: str = "quick",
    max_drift: float | None = None,
) -> ParityReport:
    """The report on the file of `model`.

    Args:
        report: on `float32`.
        float32: the file that it was made of.
        model: the file, open.
        expected: the cases of `float32`.
        mutants: how many wrong copies of the file are tried.
        max_drift: see `converted_results`.
    """
    found = converted_results(
        float32, model, expected, mutants=mutants if report.in_parity else "none", max_drift=max_drift
    )
    labels = [replace(case, label=f"in float32: {case.label}") for case in report.cases]
    location = report.location and replace(report.location, case=f"in float32: {report.location.case}")
    notes = [*report.notes, *found.notes]
    if model.metadata.digest not in (None, report.digest):
        notes.append("the file was exported from other weights than these (its digest differs)")
    return replace(
        report,
        file=model.path,
        digest=model.metadata.digest,
        cases=(*labels, *found.cases),
        location=location,
        mutants=(*report.mutants, *found.mutants),
        notes=tuple(notes),
        precision=precision_of(model),
        drift=found.drift,
    )
