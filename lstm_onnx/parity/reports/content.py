"""Makes the texts of a report, which every layout shares.

Names and messages come from files of unknown origin, so all text passes `clean` here: one line, no control
characters, of limited length.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...terminal_text import one_line
from ..criterion import nan_as_inf
from ..sizes import spans
from ..tolerances import K

if TYPE_CHECKING:
    from ..criterion import Growth, TensorResult
    from ..results import CaseResult, Drift, MutantResult, Range, Results

COLUMNS = ("output", "largest error", "allowed error", "PyTorch's own", f"ratio (max {K:g})", "where")
_MOST_SPANS = 40
"""The most spans of sizes or integers that are listed."""
_MOST_ERRORS = 3
"""The most different errors of failed runs that are shown."""
INCONCLUSIVE = "PyTorch's own error is too large here to judge by"
NOT_PROVEN = (
    "the comparison accepts a file with these mistakes, so it does not prove that this file has none of them. "
    "Verify with inputs that the model reacts to (--data, data=) or with trained weights, since zero, tiny or "
    'untrained weights hide mistakes; without the self-test (--mutants none, mutants="none") the file is in parity '
    "on the inputs that were tried"
)
"""What to do about mutants that survived."""
_OF_A_FILE = (*COLUMNS[:3], "rounding", *COLUMNS[4:])
"""The same if there is no PyTorch model."""
_PRECISIONS = {"int8": " but for int8 weights", "float16": " but for float16 weights"}
"""Added to the verdict for a file with smaller weights."""
_AMPLIFIED = "weights amplified"
"""Part of the labels of cases with amplified weights."""
_OUTCOMES = {"rejected": "rejected", "equivalent": "proven equivalent", "survived": "survived"}
"""The results of a mutant, by `MutantResult.outcome`."""


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
    """A line below the table; `label`, `text` and `details` read as sentences, and `bad` marks a failure."""

    label: str
    text: str
    details: tuple[tuple[str, str], ...] = ()
    bad: bool = False


def clean(text: object) -> str:
    """`text` made safe to print: see `terminal_text.one_line`."""
    return one_line(text)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def counted(count: int, one: str, many: str) -> str:
    """A number with its noun, such as ``1 case`` and ``2 cases``."""
    return f"{count} {one if count == 1 else many}"


def columns(report: Results) -> tuple[str, ...]:
    """The names of a row's cells."""
    return COLUMNS if report.reference == "PyTorch" else _OF_A_FILE


def verdict(report: Results) -> str:
    """The answer."""
    if report.reference == "PyTorch":
        answer = f"in parity with PyTorch{_PRECISIONS.get(report.precision, '')}"
    else:
        answer = f"the {report.precision} form of the float32 file"
    if not report.in_parity:
        drifts = {case.kind for case in report.judged if not case.passed} == {"drift"}
        return f"{answer}, and DRIFTS FARTHER than allowed" if drifts else f"NOT {answer}"
    return f"{answer} (NOT PROVEN)" if report.survivors else answer


def headline(report: Results) -> str:
    """The file, the verdict and the source."""
    return f"{clean(report.file)}: {verdict(report)}, {clean(report.source)}"


def summary(report: Results) -> str:
    """The number of cases, the provider, and the criterion."""
    judged = len(report.judged)
    failed = sum(not case.passed for case in report.judged)
    cases = counted(judged, "case", "cases")
    done = f"{failed} of {cases} failed" if failed else cases
    measure = f"an error may be up to {K:g} times PyTorch's own, and {K:g} roundings in any case"
    if report.reference != "PyTorch":
        measure = f"numbers must be equal, and the error of a layer may be up to {K:g} roundings of float32"
    return f"{done} on {place(report)}; {measure}"


def place(report: Results) -> str:
    """Where the file ran: the provider, and the engine if it is not ONNX Runtime."""
    return f"{clean(report.runtime)} ({clean(report.provider)})" if report.runtime else clean(report.provider)


def row(case: CaseResult, tensor: TensorResult) -> Row:
    """The result of one output in one case."""
    where = clean(case.label)
    if tensor.where:
        where = f"{list(tensor.where)} of {where}"
    if tensor.problem:
        where = f"{where}: {clean(tensor.problem)}"
    # These are NaN only if shapes or dtypes differ, so that no numbers were compared.
    allowed, own = ("-" if math.isnan(one) else number(one) for one in (tensor.allowed, tensor.torch_error))
    return Row(clean(tensor.output), number(tensor.error), allowed, own, number(tensor.ratio), where, tensor.passed)


def rows(report: Results) -> list[Row]:
    """For each output, the case with the largest ratio."""
    return [row(case, tensor) for case, tensor in report.worst.values()]


def charted(report: Results) -> list[tuple[CaseResult, TensorResult, Growth]]:
    """The curves to draw: for each output with a time axis its longest case, failing ones before all others.

    The case and output of the first difference come first, then those with the largest ratios.
    """
    first = (report.location.case, report.location.output) if report.location is not None else None

    def importance(found: tuple[CaseResult, TensorResult, Growth]) -> tuple[bool, bool, int, float]:
        case, tensor, growth = found
        return (case.label, tensor.output) == first, not tensor.passed, len(growth.error), nan_as_inf(tensor.ratio)

    best: dict[str, tuple[CaseResult, TensorResult, Growth]] = {}
    for case in report.judged:
        for tensor in case.tensors:
            if tensor.growth is not None and tensor.growth.error:
                found = case, tensor, tensor.growth
                best[tensor.output] = max(best.get(tensor.output, found), found, key=importance)
    return sorted(best.values(), key=importance, reverse=True)


def remarks(report: Results) -> list[Remark]:
    """The lines below the table: causes, first difference, errors, ranges, the self-test, notes."""
    lines = [
        Remark("likely cause:", clean(cause.name), (("evidence:", clean(cause.evidence)), ("fix:", clean(cause.fix))))
        for cause in report.causes
    ]
    if report.location is not None:
        where = clean(report.location)
        lines.append(Remark("first differs", where if where.startswith("from ") else f"in {where}", bad=True))
    if (explained := amplified(report)) is not None:
        lines.append(Remark(f"{_AMPLIFIED}:", explained))
    failures = errors(report)
    if failures[_MOST_ERRORS:]:
        more = len(failures) - _MOST_ERRORS
        failures[_MOST_ERRORS:] = [
            ("failed", f"with {counted(more, 'other error', 'other errors')}, which --json lists")
        ]
    lines += [Remark(label, text, bad=True) for label, text in failures]
    if not report.judged:
        lines.append(Remark("failed", "no case could be judged", bad=True))
    if report.ranges:
        lines.append(Remark("tried:", ranges(report)))
    for drift in report.drift:
        lines.append(Remark("drift:", drifted(drift)))
    if report.mutants:
        lines.append(Remark("self-test:", tried(report)))
    lines += [Remark("survived:", survived(mutant), bad=True) for mutant in report.survivors]
    if report.survivors:
        lines.append(Remark("NOT PROVEN:", NOT_PROVEN))
    return lines + [Remark("note:", clean(note)) for note in report.notes]


def amplified(report: Results) -> str | None:
    """An explanation of large errors in the table, if right outputs have their largest ratio with amplified weights."""
    shown = [case for case, tensor in report.worst.values() if _AMPLIFIED in case.label and tensor.passed]
    if not shown:
        return None
    text = (
        "these cases have larger weights, which make the effect of a wrong gate visible; rounding errors grow with the "
        "weights, in PyTorch as well, so judge such a row by its ratio and not by the size of its error"
    )
    own = [case for case in report.judged if _AMPLIFIED not in case.label]
    errors = [nan_as_inf(tensor.error) for case in own for tensor in case.tensors if tensor.passed]
    return f"{text}; with the weights as they are the largest error is {number(max(errors))}" if errors else text


def facts(report: Results) -> dict[str, str]:
    """Facts about the verification by name, such as versions, without those that are unknown."""
    known = {
        "provider": report.provider,
        "took": f"{report.seconds:.1f} s",
        "date": report.date,
        "command": report.command,
        "weights digest": report.digest or "",
        "git commit": report.commit,
        **report.versions,
    }
    return {name: value for name, value in known.items() if value}


def failures(case: CaseResult) -> str:
    """The outputs of a case that fail: error, what was allowed, ratio."""
    wrong = [row(case, tensor) for tensor in case.tensors if not tensor.passed]
    return ", ".join(f"{one.error} of {one.output} (allowed {one.allowed}, ratio {one.ratio})" for one in wrong)


def ranges(report: Results) -> str:
    """The sizes and values that were tried, such as ``batch 1 to 16, 32; tokens 0 to 99; x -310 to 296``."""
    return "; ".join(map(_range, report.ranges))


def drifted(drift: Drift) -> str:
    """Such as ``output is off by 0.64% (root mean square), at most 0.012, on random inputs; by step: 0.003 at 1``."""
    inputs = "your data" if drift.inputs == "data" else "random inputs"
    over_time = f"; by step: {_over_time(drift)}" if drift.over_time else ""
    size = f"{drift.relative:.2%} (root mean square), at most {number(drift.largest)}"
    return f"{clean(drift.output)} is off by {size}, on {inputs}{over_time}"


def _over_time(drift: Drift) -> str:
    """The first step, the middle and the last."""
    parts = drift.over_time
    shown = {0: parts[0], len(parts) // 2: parts[len(parts) // 2], len(parts) - 1: parts[-1]}
    steps = [1 + at * max(drift.steps - 1, 0) // max(len(parts) - 1, 1) for at in shown]
    return ", ".join(f"{number(value)} at {step}" for step, value in zip(steps, shown.values(), strict=True))


def drift_rows(report: Results) -> list[tuple[str, None, tuple[str, str, str, str]]]:
    """The rows of the table of drifts."""
    shown = []
    for drift in report.drift:
        over_time = _over_time(drift) if drift.over_time else "-"
        cells = (clean(drift.inputs), f"{drift.relative:.2%}", number(drift.largest), over_time)
        shown.append((clean(drift.output), None, cells))
    return shown


def _range(one: Range) -> str:
    name = clean(one.name)
    if one.kind == "numbers":
        return f"{name} {number(one.least)} to {number(one.largest)}"
    shown = spans(one.values)
    if shown.count(",") < _MOST_SPANS:
        return f"{name} {shown}"
    return f"{name} {len(one.values)} between {one.least:.0f} and {one.largest:.0f}"


def tried(report: Results) -> str:
    """Such as ``14 mutants: 13 rejected, 1 proven equivalent``."""
    counts = Counter(mutant.outcome for mutant in report.mutants)
    parts = [f"{counts[outcome]} {words}" for outcome, words in _OUTCOMES.items() if counts[outcome]]
    return f"{counted(len(report.mutants), 'mutant', 'mutants')}: {', '.join(parts)}"


def survived(mutant: MutantResult) -> str:
    """A surviving mutant, and its largest ratio."""
    return f"{clean(mutant.name)} (ratio {number(mutant.ratio)} at {clean(mutant.case)})"


def outcome(mutant: MutantResult) -> str:
    """The result of a mutant, with the reason if there is one."""
    result = _OUTCOMES.get(mutant.outcome, mutant.outcome)
    return f"{result}: {clean(mutant.reason)}" if mutant.reason else result


def errors(report: Results) -> list[tuple[str, str]]:
    """The errors of cases, each message once, with its first case."""
    found: dict[str, list[CaseResult]] = {}  # by message
    for case in report.judged:
        if case.error:
            found.setdefault(clean(case.error), []).append(case)
    lines = []
    for error, cases in found.items():
        more = f" and {len(cases) - 1} more" * (len(cases) > 1)
        ran = cases[0].kind not in ("described", "stored")
        lines.append(("failed to run" if ran else "wrong:", f"{'at ' * ran}{clean(cases[0].label)}{more}: {error}"))
    return lines
