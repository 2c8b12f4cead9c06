"""Defines the report of a verification: as text, as JSON, and as a truth value for the exit code."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from .criterion import TensorResult
from .reports.content import headline, place
from .reports.table import plain
from .results import Results
from .sizes import spans
from .tolerances import K

SCHEMA = 1
"""The version of `ParityReport.to_dict`, which is raised when a field is removed, is renamed or changes its meaning."""


class ParityReport(Results):
    """The result of `verify`; truthy if the file is in parity with PyTorch and no mutant survived.

    A surviving mutant is a mistake that this comparison did not detect, so the file's parity is not proven either.
    For a bare nn.LSTM, an inconclusive case is followed by cases that run the same steps, fewer at a time.

    Attributes:
        file: the file, or a description of it.
        source: the PyTorch model.
        provider: where the file ran: "cpu" or "cuda".
        cases: all cases.
        notes: remarks.
        location: where the file first differs; None if it is in parity.
        causes: the likely causes, if the file is not in parity.
        mutants: the results of the self-test, if the file is in parity.
        versions: the versions of the packages involved.
        seconds: the duration.
        ranges: the sizes and values that were tried; the verdict does not cover others.
        digest: the digest of the file's weights, from its metadata.
        date: when the report was made, in UTC, in ISO 8601.
        command: the command line, if there was one.
        commit: the commit of the working directory's git repository.
        precision: "int8" or "float16" for a file with smaller weights: its float32 export is compared with PyTorch, and
            the file with the conversion of that export to this precision; else "".
        drift: how much the smaller weights change the outputs.
        reference: "PyTorch"; or "float32" if `source` is the float32 file that `file` was made from.
        runtime: the engine that ran the file and its version, such as "OpenVINO 2026.4.1"; "" for ONNX Runtime.
    """

    def to_dict(self) -> dict[str, object]:
        """The report for JSON; values that are not JSON numbers are the strings "inf", "-inf" and "nan".

        `schema` is the version of this format, `SCHEMA`.  `passed` is the verdict, and `in_parity` the verdict
        without the self-test; `limit` is the largest ratio that passes.  `outputs` has for each output the `case`
        with the largest ratio and the fields of a `TensorResult`, of which `allowed` is the largest error that
        passes; `location`, `causes` and `mutants` have the fields of their classes, and `location` is null where there
        is none.  `cases` has every `case` with its `kind`, whether it `passed` or is `inconclusive`, its `error` or
        null, and its `outputs`.  `ranges` has the `name`, `kind`, `least` and `largest` of each axis and input and,
        except for numbers, the `values` as text, such as "1 to 16, 32".  `drift` has the fields of each `Drift`.  The
        other fields are the attributes.
        """
        return {
            "schema": SCHEMA,
            "passed": bool(self),
            "in_parity": self.in_parity,
            **{name: getattr(self, name) for name in ("file", "source", "provider")},
            "runtime": self.runtime or "onnxruntime",
            "limit": K,
            "outputs": {name: {**_tensor(t, growth=True), "case": c.label} for name, (c, t) in self.worst.items()},
            "location": None if self.location is None else asdict(self.location),
            "causes": [asdict(cause) for cause in self.causes],
            "mutants": [_finite(asdict(mutant)) for mutant in self.mutants],
            "cases": [
                {
                    "case": case.label,
                    "kind": case.kind,
                    "passed": case.passed,
                    "inconclusive": case.inconclusive,
                    "error": case.error or None,
                    "outputs": {tensor.output: _tensor(tensor) for tensor in case.tensors},
                }
                for case in self.cases
            ],
            "ranges": [{**asdict(one), "values": spans(one.values)} for one in self.ranges],
            "notes": list(self.notes),
            "versions": dict(self.versions),
            "seconds": round(self.seconds, 3),
            **{name: getattr(self, name) for name in ("digest", "date", "command", "commit", "precision")},
            "drift": [_finite(asdict(one)) for one in self.drift],
            "reference": self.reference,
        }

    def __repr__(self) -> str:
        """One line: the verdict and its numbers."""
        failed = sum(not case.passed for case in self.judged)
        return f"<ParityReport {headline(self)}: {failed} of {len(self.judged)} cases failed on {place(self)}>"

    def _repr_html_(self) -> str:
        """The summary of the page, for notebooks."""
        from .reports.page import summary_html

        return summary_html(self)

    def __str__(self) -> str:
        """The report as a plain-text table: see `parity.reports.table`."""
        return plain(self)


def _tensor(tensor: TensorResult, *, growth: bool = False) -> dict[str, object]:
    """A tensor's fields; only the worst cases have curves and heat maps."""
    values = {**asdict(replace(tensor, growth=None)), "where": list(tensor.where)}
    del values["growth"]
    if growth and tensor.growth is not None:
        values["growth"] = asdict(tensor.growth)
    return dict(_finite(values))


def _finite(value: Any) -> Any:
    """NaN and infinities as strings, since JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
