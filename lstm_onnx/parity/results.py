"""Defines the results of a verification as data.

`reports` arranges them as text, and `report` combines these texts in one object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from .criterion import TensorResult, nan_as_inf

RUNS = ("whole", "chunks", "pool", "steps", "data", "values", "sweep")
"""How a case is run: in one call, in chunks through a stream, in slots of a pool, in short windows from the float64
states, on the user's own inputs, on zero, one-signed or large values, or in one call for each size of an axis or each
part of a range."""
KINDS = (*RUNS, "described", "stored", "layers", "rows", "drift")
"""The kinds of all cases.  Of the additional ones, one checks what a file's metadata says: its inputs and outputs, its
initial states, and the counts of its streams' steps.  One compares the numbers and nodes that a file stores, of a usual
file the rows of tables that no case looks up.  The last three are for files with smaller weights: they check what its
int8 layers compute, rows alone and step by step, and the user's limit on the drift."""
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
        """Whether PyTorch's own error was too large to judge this case; a case with an output that fails is judged."""
        judged = [tensor for tensor in self.tensors if not tensor.inconclusive]
        return not self.error and len(judged) < len(self.tensors) and all(tensor.passed for tensor in judged)

    @property
    def ratio(self) -> float:
        """The largest ratio of any output; infinite if the file failed to run."""
        return math.inf if self.error else max((nan_as_inf(tensor.ratio) for tensor in self.tensors), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether the file ran and every tensor passed."""
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
    """The effect of smaller weights: the difference of an output from the float64 model, or from the float32 file.

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

    `outcome` is "rejected", "survived" or "equivalent"; `ratio` is the largest ratio of any output, infinite if the
    mutant did not run; `case` is the case that rejected it, or came closest to rejecting it; `reason` is the proof that
    it is equivalent to the file, in which case it was not run.
    """

    name: str
    outcome: str
    ratio: float
    case: str
    reason: str = ""


@dataclass(frozen=True)
class Results:
    """The content of a report: the fields, which `ParityReport` describes, and what follows from them."""

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
