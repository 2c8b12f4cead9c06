"""What a parity check found: one object, for people, for programs and for the exit code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .criterion import K, TensorResult
from .reports.table import plain
from .sizes import spans

KINDS = ("whole", "chunks", "pool", "steps", "data", "values", "sweep")
"""How a case was run: in one call, in chunks through a stream, in slots of a pool, in single steps from the
float64 trajectory, on the user's own inputs, on large, zero or one-sided values, or in one call for each size of
an axis or each part of a range."""


@dataclass(frozen=True)
class CaseResult:
    """One case: its tensors, or the error that kept the file from running.  `kind` is one of `KINDS`."""

    label: str
    tensors: tuple[TensorResult, ...] = ()
    error: str = ""
    kind: str = "whole"

    @property
    def inconclusive(self) -> bool:
        """Whether PyTorch's own error was too large in this case for it to say anything."""
        return not self.error and any(tensor.inconclusive for tensor in self.tensors)

    @property
    def passed(self) -> bool:
        """Whether it ran and every tensor is within the criterion."""
        return not self.error and bool(self.tensors) and all(tensor.passed for tensor in self.tensors)


@dataclass(frozen=True)
class Location:
    """Where a file first differs from PyTorch.

    `step`, `row` (of the batch) and `feature` are those of the output in the case named; `layer`,
    `direction` ("forward" or "reverse") and `gate` ("i", "f", "g", "o", or "i or g" where one run cannot
    tell) are where it can be told, and None elsewhere.  `module` is the path of the LSTM in a larger module.
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
        """As in ``layer 1, reverse, gate f, from step 3 on, of output in batch 3, time 7``."""
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
    """A likely reason, from the catalogue in `parity.causes`.

    `evidence` says what was tried and how well it explains the file's numbers; `fix` how to mend it.
    """

    name: str
    evidence: str
    fix: str


@dataclass(frozen=True)
class Range:
    """What was tried of an axis or an input.

    `kind` is "sizes" (of an axis), "integers" or "numbers" (of an input); `least` and `largest` are of all that
    was tried; `values` has each size or integer, in rising order, and nothing for numbers.
    """

    name: str
    kind: str
    least: float
    largest: float
    values: tuple[int, ...] = ()


OUTCOMES = ("rejected", "survived", "equivalent")


@dataclass(frozen=True)
class MutantResult:
    """A wrong copy of the file, and whether the comparison rejects it.

    `outcome` is one of `OUTCOMES`; `ratio` the largest error of any output in units of the yardstick,
    infinite where it did not run; `case` the one that rejected it, or came nearest to; `reason` why it
    is equivalent: then the change is proven to be none, and nothing was run.
    """

    name: str
    outcome: str
    ratio: float
    case: str
    reason: str = ""


@dataclass(frozen=True)
class ParityReport:
    """The outcome of `verify`; truthy when the file is in parity with PyTorch and no mutant survived.

    A mutant that passes for right says that this comparison would not have seen that mistake, so it
    cannot vouch for the file either.  Where a case is inconclusive, the case after it takes its place:
    the same steps, fewer at a time.  `location` and `causes` are there when the file is not in parity,
    `mutants` when the verification was tried on wrong copies of it; `seconds` is how long it all took.
    `ranges` are the sizes and values that were tried: of others the report says nothing.
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

    @property
    def survivors(self) -> tuple[MutantResult, ...]:
        """The wrong copies that this verification would have let pass."""
        return tuple(mutant for mutant in self.mutants if mutant.outcome == "survived")

    @property
    def judged(self) -> tuple[CaseResult, ...]:
        """The cases that say something."""
        return tuple(case for case in self.cases if not case.inconclusive)

    @property
    def in_parity(self) -> bool:
        """Whether there was something to judge, and all of it passed."""
        return bool(self.judged) and all(case.passed for case in self.judged)

    def __bool__(self) -> bool:
        """Whether the file is in parity, and no mutant survived."""
        return self.in_parity and not self.survivors

    @property
    def worst(self) -> dict[str, tuple[CaseResult, TensorResult]]:
        """For each output, the judged case in which it came off worst."""
        worst: dict[str, tuple[CaseResult, TensorResult]] = {}
        for case in self.judged:
            for tensor in case.tensors:
                held = worst.get(tensor.output)
                if held is None or not tensor.ratio <= held[1].ratio:
                    worst[tensor.output] = (case, tensor)
        return worst

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; what is no number in JSON is one of the strings "inf" and "nan".

        `passed` is the verdict, and `in_parity` the one without the self-test; `file`, `source` and
        `provider` say what was compared, and `limit` which ratio still passes.  `outputs` has for each
        output the `case` in which it came off worst, with the fields of a `TensorResult`; `location`, `causes`
        and `mutants` have those of their classes, `location` is null where there is none.  `cases` has
        every `case` with its `kind`, whether it `passed` or is `inconclusive`, its `error` or null, and
        its `outputs`.  `ranges` has for each axis and input its `name`, `kind`, `least`, `largest` and, but for
        numbers, the `values` as text, such as "1 to 16, 32".  `notes`, `versions` by package and `seconds` are as here.
        """
        return {
            "passed": bool(self),
            "in_parity": self.in_parity,
            "file": self.file,
            "source": self.source,
            "provider": self.provider,
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
            "ranges": [_range(one) for one in self.ranges],
            "notes": list(self.notes),
            "versions": dict(self.versions),
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        """The table for people, as plain text: see `parity.reports.table`."""
        return plain(self)


def _range(one: Range) -> dict[str, object]:
    return {**asdict(one), "values": spans(one.values)}


def _tensor(tensor: TensorResult, *, growth: bool = False) -> dict[str, object]:
    """Curves and heat maps are told of the worst cases only."""
    values = {**asdict(replace(tensor, growth=None)), "where": list(tensor.where)}
    del values["growth"]
    if growth and tensor.growth is not None:
        values["growth"] = asdict(tensor.growth)
    finite: dict[str, object] = _finite(values)
    return finite


def _finite(value: Any) -> Any:
    """NaN and infinities as strings: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
