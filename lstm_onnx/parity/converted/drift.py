"""Measures how far a file with smaller weights is from the float64 model: for information, unless there is a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import ConfigError, InputError, RunError
from ...runtime import Model
from ..criterion import MOST_BINS, TensorResult
from ..expected import Expected
from ..report import ParityReport
from ..results import CaseResult, Drift
from ..tolerances import K

LIMIT = "the drift from float64"
"""The label of the case on the user's limit."""
_KINDS = {"whole": "drawn", "data": "data"}


def precision_of(model: Model) -> str:
    """ "int8" or "float16" if a file's weights are stored in it, otherwise ""."""
    metadata = model.metadata
    if metadata.quantization is not None:
        return "int8"
    return "float16" if metadata.options is not None and metadata.options.precision == "float16" else ""


def require_drift(limit: Any) -> None:
    """Check the limit of the drift.

    Raises:
        ConfigError: it is not a number of 0 or more.
    """
    if limit is None:
        return
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ConfigError.of_argument("max_drift", limit, "a number of 0 or more, such as 0.01")


def drifts(model: Model, expected: Iterable[Expected]) -> tuple[Drift, ...]:
    """The difference of each output from the float64 model, on random inputs and on the user's, also step by step."""
    found: dict[tuple[str, str], _Sum] = {}
    for case in expected:
        if case.kind not in _KINDS or case.inconclusive:
            continue
        call = case.calls[0]
        try:
            outputs = model.run(call.feeds)
        except (InputError, RunError):
            continue  # its case fails anyway
        for name, reference in call.reference.items():
            actual = outputs.get(name)
            if actual is not None and actual.shape == reference.shape and reference.size:
                total = found.setdefault((name, _KINDS[case.kind]), _Sum())
                total.add(np.asarray(actual), reference, case.time_axes.get(name))
    return tuple(total.drift(name, inputs) for (name, inputs), total in found.items())


class _Sum:
    """Sums of squares over all cases, and step by step for the longest of them."""

    def __init__(self) -> None:
        self.error = self.size = self.largest = 0.0
        self.steps: np.ndarray = np.zeros(0)

    def add(self, actual: np.ndarray, reference: np.ndarray, time_axis: int | None) -> None:
        wanted = reference.astype(np.float64)
        difference = actual.astype(np.float64) - wanted
        if reference.dtype.kind != "f":  # of integers, whether they differ
            difference, wanted = (actual != reference).astype(np.float64), np.ones(reference.shape)
        difference = np.where(np.isfinite(wanted), difference, 0.0)
        wanted = np.where(np.isfinite(wanted), wanted, 0.0)
        self.error += float(np.square(difference).sum())
        self.size += float(np.square(wanted).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        if time_axis is not None and difference.shape[time_axis] > len(self.steps):
            moved = np.moveaxis(difference, time_axis, 0).reshape(difference.shape[time_axis], -1)
            self.steps = np.sqrt(np.square(moved).mean(axis=1))

    def drift(self, name: str, inputs: str) -> Drift:
        relative = float(np.sqrt(self.error / self.size)) if self.size else float(np.sqrt(self.error))
        bins = np.array_split(self.steps, min(MOST_BINS, max(len(self.steps), 1)))
        over_time = tuple(float(part.max()) for part in bins if part.size)
        return Drift(name, inputs, relative, self.largest, over_time, len(self.steps))


def with_limited_drift(
    report: ParityReport, model: Model, expected: Sequence[Expected], limit: float | None
) -> ParityReport:
    """A report with the drift and the case on the user's limit, if there is one."""
    if limit is None:
        return report
    found = drifts(model, expected)
    return replace(report, drift=found, cases=(*report.cases, limit_case(found, limit)))


def limit_case(found: Sequence[Drift], limit: float, label: str = LIMIT) -> CaseResult:
    """The case that fails if an output drifts farther than the user allows; its label says from what."""
    tensors = []
    for drift in found:
        ratio = K * drift.relative / limit if limit else (0.0 if drift.relative == 0 else np.inf)
        name = drift.output if drift.inputs == "drawn" else f"{drift.output} (data)"
        tensors.append(TensorResult(name, drift.relative, np.nan, float(ratio), (), allowed=limit))
    if not tensors:
        return CaseResult(label, error="no output could be compared", kind="drift")
    return CaseResult(label, tuple(tensors), kind="drift")
