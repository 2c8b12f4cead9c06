"""The report of a verification: one object for people, for programs and for the exit code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .criterion import TensorResult, nan_as_inf
from .reports.table import plain
from .sizes import spans
from .tolerances import K

SCHEMA = 1
"""The version of `ParityReport.to_dict`: raised when a field is removed, renamed or changes its meaning."""
RUNS = ("whole", "chunks", "pool", "steps", "data", "values", "sweep")
"""How a case is run: in one call, in chunks through a stream, in slots of a pool, in short windows from the float64
states, on the user's own inputs, on zero, one-signed or large values, or in one call for each size of an axis or each
part of a range."""
KINDS = (*RUNS, "described", "stored", "layers", "rows", "drift")
"""The kinds of all cases.  Of the others, one is on what a file says of itself: its inputs and outputs, where its
states start, when its streams give their steps.  The last four are for files with smaller weights: on the numbers and
nodes that a file stores, on what its int8 layers compute, on rows alone and step by step, and on the user's limit of
the drift."""
OTHER_WEIGHTS = (
    "the file was exported from other weights than these (its digest differs); "
    "where the source draws them at random, set a seed in it"
)
"""A note."""


@dataclass(frozen=True)
class CaseResult:
    """One case: its tensors, or the error with which the file failed to run.  `kind` is one of `KINDS`."""

    label: str
    tensors: tuple[TensorResult, ...] = ()
    error: str = ""
    kind: str = "whole"

    @property
    def inconclusive(self) -> bool:
        """Whether PyTorch's own error was too large for this case to be judged; an output that fails is judged."""
        judged = [tensor for tensor in self.tensors if not tensor.inconclusive]
        return not self.error and len(judged) < len(self.tensors) and all(tensor.passed for tensor in judged)

    @property
    def ratio(self) -> float:
        """The largest ratio of any output; infinite where the file failed to run."""
        return math.inf if self.error else max((nan_as_inf(tensor.ratio) for tensor in self.tensors), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether it ran and every tensor passed."""
        return not self.error and bool(self.tensors) and all(tensor.passed for tensor in self.tensors)


@dataclass(frozen=True)
class Location:
    """Where a file first differs from PyTorch.

    `step`, `row` (of the batch) and `feature` are those of the output in the case; `layer`, `direction` ("forward" or
    "reverse") and `gate` ("i", "f", "g", "o", or "i or g" where one run cannot distinguish them) are None where they
    could not be determined.  `module` is the path of the LSTM in a larger module.
    """

    case: str
    output: str
    step: int | None = None
    row: int | None = None
    feature: int | None = None
    layer: int | None = None
    direction: str | None = None
    gate: str | None = None
    module: str | None = None

    def __str__(self) -> str:
        """Such as ``layer 1, reverse, gate f, from step 3 on, output (row 0) in batch 3, time 7``."""
        parts = [self.module] if self.module else []
        parts += [f"layer {self.layer}"] if self.layer is not None else []
        parts += [self.direction] if self.direction else []
        parts += [f"gate {self.gate}"] if self.gate else []
        parts += [f"from step {self.step} on"] if self.step is not None else []
        at = [f"{name} {value}" for name, value in (("row", self.row), ("feature", self.feature)) if value is not None]
        parts.append(" ".join([self.output, *([f"({', '.join(at)})"] if at else []), "in", self.case]))
        return ", ".join(parts)


@dataclass(frozen=True)
class Cause:
    """A likely cause, from the catalogue in `parity.diagnosis`.

    `evidence` says what was tried and how well it explains the file's numbers, and `fix` how to correct the file.
    """

    name: str
    evidence: str
    fix: str


@dataclass(frozen=True)
class Range:
    """The sizes of an axis or the values of an input that were tried.

    `kind` is "sizes" (of an axis), "integers" or "numbers" (of an input); `least` and `largest` are the extremes;
    `values` has each size or integer, in ascending order, and is empty for numbers.
    """

    name: str
    kind: str
    least: float
    largest: float
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Drift:
    """The cost of smaller weights: the difference of an output from the float64 model, or from the float32 file.

    `inputs` is "drawn" or "data"; `relative` the root mean square of the difference over all cases, relative to that of
    the output (for integers, the share that differs); `largest` the largest difference.  `over_time` is the root mean
    square at each step of the longest case, which has `steps` steps: the largest of each of at most 64 parts; empty
    without a time axis.
    """

    output: str
    inputs: str
    relative: float
    largest: float
    over_time: tuple[float, ...] = ()
    steps: int = 0


@dataclass(frozen=True)
class MutantResult:
    """A mutant, a wrong copy of the file, and whether the comparison rejects it.

    `outcome` is "rejected", "survived" or "equivalent"; `ratio` the largest ratio of any output, infinite where it did
    not run; `case` the case that rejected it, or came closest to that; `reason` the proof that it is equivalent to the
    file, which was then not run.
    """

    name: str
    outcome: str
    ratio: float
    case: str
    reason: str = ""


@dataclass(frozen=True, repr=False)
class ParityReport:
    """The result of `verify`; truthy if the file is in parity with PyTorch and no mutant survived.

    A surviving mutant shows a mistake that this comparison would not have detected, so the file's parity is not
    proven either.  For a bare nn.LSTM an inconclusive case is followed by the same steps, fewer at a time.

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
        ranges: the sizes and values that were tried; the verdict covers no others.
        digest: the digest of the file's weights, from its metadata.
        date: when the report was made, in UTC, in ISO 8601.
        command: the command line, if there was one.
        commit: the commit of the working directory's git repository.
        precision: "int8" or "float16" of a file with smaller weights, whose float32 export is compared with PyTorch,
            and which is compared with what that precision makes of the export; else "".
        drift: what the smaller weights cost.
        reference: "PyTorch"; or "float32", where `source` is the float32 file that `file` was made of.
        runtime: the engine that ran the file and its version, such as "OpenVINO 2026.4.1"; "" for ONNX Runtime.
    """

    file: str
    source: str
    provider: str
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...] = ()
    location: Location | None = None
    causes: tuple[Cause, ...] = ()
    mutants: tuple[MutantResult, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    ranges: tuple[Range, ...] = ()
    digest: str | None = None
    date: str = ""
    command: str = ""
    commit: str = ""
    precision: str = ""
    drift: tuple[Drift, ...] = ()
    reference: str = "PyTorch"
    runtime: str = ""

    @property
    def survivors(self) -> tuple[MutantResult, ...]:
        """The mutants that this verification did not reject."""
        return tuple(mutant for mutant in self.mutants if mutant.outcome == "survived")

    @property
    def judged(self) -> tuple[CaseResult, ...]:
        """The conclusive cases."""
        return tuple(case for case in self.cases if not case.inconclusive)

    @property
    def in_parity(self) -> bool:
        """Whether there was a conclusive case, and all of them passed."""
        return bool(self.judged) and all(case.passed for case in self.judged)

    def __bool__(self) -> bool:
        """Whether the file is in parity, and no mutant survived."""
        return self.in_parity and not self.survivors

    @property
    def worst(self) -> dict[str, tuple[CaseResult, TensorResult]]:
        """For each output, the conclusive case with the largest ratio."""
        worst: dict[str, tuple[CaseResult, TensorResult]] = {}
        for case in self.judged:
            for tensor in case.tensors:
                found = worst.get(tensor.output)
                if found is None or nan_as_inf(tensor.ratio) > nan_as_inf(found[1].ratio):
                    worst[tensor.output] = (case, tensor)
        return worst

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
        """One line: the verdict and its figures."""
        from .reports.content import headline, place

        failed = sum(not case.passed for case in self.judged)
        return f"<ParityReport {headline(self)}: {failed} of {len(self.judged)} cases failed on {place(self)}>"

    def _repr_html_(self) -> str:
        """The summary of the page, for notebooks."""
        from .reports.page import summary_html

        return summary_html(self)

    def __str__(self) -> str:
        """The table for people, as plain text: see `parity.reports.table`."""
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
