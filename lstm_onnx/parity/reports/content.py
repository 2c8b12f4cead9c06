"""What a report says, in words: the one source for every layout.

Names and messages come from files that anybody may have made, so all text passes `clean` here: one
line, no control characters, not without end.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...terminal_text import one_line
from ..criterion import K
from ..sizes import spans

if TYPE_CHECKING:
    from ..criterion import Growth, TensorResult
    from ..report import CaseResult, MutantResult, ParityReport, Range

COLUMNS = ("output", "largest error", "allowed error", "PyTorch's own", f"ratio (max {K:g})", "where")
_MOST_SPANS = 40
"""Of sizes or integers that are told one by one."""
INCONCLUSIVE = "PyTorch's own error is too large here to judge by"
_OUTCOMES = {"rejected": "rejected", "equivalent": "proven to be no change", "survived": "passed for right"}
"""What became of a wrong copy, by `report.OUTCOMES`."""


@dataclass(frozen=True)
class Row:
    """A line of the table of outputs; the first six fields are the cells under `COLUMNS`."""

    output: str
    error: str
    allowed: str
    torch_error: str
    ratio: str
    where: str
    passed: bool

    @property
    def cells(self) -> tuple[str, str, str, str, str, str]:
        """The text under each of `COLUMNS`."""
        return self.output, self.error, self.allowed, self.torch_error, self.ratio, self.where


@dataclass(frozen=True)
class Remark:
    """What is said below the table; `label`, `text` and `details` read as sentences, and `bad` is what fails."""

    label: str
    text: str
    details: tuple[tuple[str, str], ...] = ()
    bad: bool = False


def clean(text: object) -> str:
    """`text` as it may be printed: see `terminal_text.one_line`."""
    return one_line(text)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def counted(count: int, one: str, many: str) -> str:
    """As in ``1 case`` and ``2 cases``."""
    return f"{count} {one if count == 1 else many}"


def verdict(report: ParityReport) -> str:
    """The answer."""
    if not report.in_parity:
        return "NOT in parity with PyTorch"
    if report.survivors:
        return "in parity with PyTorch (NOT PROVEN)"
    return "in parity with PyTorch"


def headline(report: ParityReport) -> str:
    """The file, the answer and the source."""
    return f"{clean(report.file)}: {verdict(report)}, {clean(report.source)}"


def summary(report: ParityReport) -> str:
    """How much was compared, where, and by which measure."""
    judged = len(report.judged)
    failed = sum(not case.passed for case in report.judged)
    cases = counted(judged, "case", "cases")
    done = f"{failed} of {cases} failed" if failed else cases
    measure = f"an error may be up to {K:g} times PyTorch's own, and {K:g} roundings in any case"
    return f"{done} on {clean(report.provider)}; {measure}"


def row(case: CaseResult, tensor: TensorResult) -> Row:
    """How one output came off in one case."""
    where = clean(case.label)
    if tensor.where:
        where = f"{list(tensor.where)} of {where}"
    if tensor.problem:
        where = f"{where}: {clean(tensor.problem)}"
    # These are not numbers only where shapes or dtypes differ and there was nothing to compare.
    allowed, own = ("-" if math.isnan(one) else number(one) for one in (tensor.allowed, tensor.torch_error))
    return Row(clean(tensor.output), number(tensor.error), allowed, own, number(tensor.ratio), where, tensor.passed)


def rows(report: ParityReport) -> list[Row]:
    """For each output the case in which it came off worst."""
    return [row(case, tensor) for case, tensor in report.worst.values()]


def charted(report: ParityReport) -> list[tuple[CaseResult, TensorResult, Growth]]:
    """What there are curves of: for each output with a time axis the longest case, failing ones before all others.

    The outputs that tell most come first.
    """

    def tells(found: tuple[CaseResult, TensorResult, Growth]) -> tuple[bool, int, float]:
        _, tensor, growth = found
        return not tensor.passed, len(growth.error), math.inf if math.isnan(tensor.ratio) else tensor.ratio

    best: dict[str, tuple[CaseResult, TensorResult, Growth]] = {}
    for case in report.judged:
        for tensor in case.tensors:
            if tensor.growth is not None and tensor.growth.error:
                found = case, tensor, tensor.growth
                best[tensor.output] = max(best.get(tensor.output, found), found, key=tells)
    return sorted(best.values(), key=tells, reverse=True)


def remarks(report: ParityReport) -> list[Remark]:
    """All that is said beside the table: what did not run, where and why it differs, the self-test, the notes."""
    said = [Remark("failed to run", text, bad=True) for text in errors(report)]
    if not report.judged:
        said.append(Remark("failed", "no case could be judged", bad=True))
    if report.location is not None:
        where = clean(report.location)
        said.append(Remark("first differs", where if where.startswith("from ") else f"in {where}", bad=True))
    said += [
        Remark("likely cause:", clean(cause.name), (("evidence:", clean(cause.evidence)), ("fix:", clean(cause.fix))))
        for cause in report.causes
    ]
    if report.ranges:
        said.append(Remark("tried:", ranges(report)))
    if report.mutants:
        said.append(Remark("self-test:", tried(report)))
    said += [Remark("passed for right:", survived(mutant), bad=True) for mutant in report.survivors]
    return said + [Remark("note:", clean(note)) for note in report.notes]


def ranges(report: ParityReport) -> str:
    """The sizes and values that were tried, as in ``batch 1 to 16, 32; tokens 0 to 99; x -310 to 296``."""
    return "; ".join(map(_range, report.ranges))


def _range(one: Range) -> str:
    name = clean(one.name)
    if one.kind == "numbers":
        return f"{name} {number(one.least)} to {number(one.largest)}"
    shown = spans(one.values)
    if shown.count(",") < _MOST_SPANS:
        return f"{name} {shown}"
    return f"{name} {len(one.values)} between {one.least:.0f} and {one.largest:.0f}"


def tried(report: ParityReport) -> str:
    """As in ``14 wrong copies: 13 rejected, 1 proven to be no change``."""
    counts = Counter(mutant.outcome for mutant in report.mutants)
    parts = [f"{counts[outcome]} {words}" for outcome, words in _OUTCOMES.items() if counts[outcome]]
    return f"{counted(len(report.mutants), 'wrong copy', 'wrong copies')}: {', '.join(parts)}"


def survived(mutant: MutantResult) -> str:
    """A wrong copy that was not seen, and how near it came to be."""
    return f"{clean(mutant.name)} (ratio {number(mutant.ratio)} at {clean(mutant.case)})"


def outcome(mutant: MutantResult) -> str:
    """What became of a wrong copy, and why where that is known."""
    became = _OUTCOMES.get(mutant.outcome, mutant.outcome)
    return f"{became}: {clean(mutant.reason)}" if mutant.reason else became


def errors(report: ParityReport) -> list[str]:
    """What kept cases from running, each message once, with the first case that it stopped."""
    labels: dict[str, list[str]] = {}  # by message
    for case in report.judged:
        if case.error:
            labels.setdefault(clean(case.error), []).append(clean(case.label))
    more = {error: f" and {len(stopped) - 1} more" * (len(stopped) > 1) for error, stopped in labels.items()}
    return [f"at {stopped[0]}{more[error]}: {error}" for error, stopped in labels.items()]
