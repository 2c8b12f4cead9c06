"""Reports as one page that stands alone: no script, nothing fetched, for phones and desktops, light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from . import content
from .charts import curve, has_unbounded, heat_map
from .colours import scale
from .markup import Markup, join, tag

if TYPE_CHECKING:
    from ..criterion import Growth, TensorResult
    from ..report import CaseResult, ParityReport

_KINDS = {
    "whole": "in one call",
    "chunks": "in chunks",
    "pool": "in a pool",
    "steps": "in short runs",
    "data": "on own data",
    "values": "on chosen values",
    "sweep": "in many calls",
}
"""How a case was run, by `report.KINDS`."""
_MOST_CHARTS = 6
"""Of a report, so that the page stays small."""


def page(reports: Sequence[ParityReport]) -> str:
    """The page, the same for the same reports.

    Its style is let in by its digest and all else is refused by the page's own security policy, so that
    nothing that a name in a file says could run or load anything, even if it were not escaped.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", _title(reports)),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag("header", tag("h1", "Parity with PyTorch"), _contents(reports)),
        tag("main", *(_report(report, f"r{index}") for index, report in enumerate(reports))),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _style() -> str:
    rules = (f".h{level}{{fill:{colour}}}" for level, colour in enumerate(scale()))
    return files(__package__).joinpath("page.css").read_text(encoding="utf-8") + "".join(rules)


def _title(reports: Sequence[ParityReport]) -> str:
    if len(reports) == 1:
        return content.headline(reports[0])
    names = dict.fromkeys(content.clean(report.source) for report in reports)
    return f"{sum(map(bool, reports))} of {len(reports)} pass: {', '.join(names)}"


def _contents(reports: Sequence[ParityReport]) -> Markup:
    """Where there are several reports, their verdicts."""
    if len(reports) == 1:
        return Markup()
    items = (
        tag(
            "li",
            tag("a", f"{content.clean(report.file)} on {content.clean(report.provider)}", href=f"#r{index}"),
            _badge("passes" if report else "fails", bool(report)),
        )
        for index, report in enumerate(reports)
    )
    return tag("nav", tag("ul", *items), aria_label="Reports")


def _badge(text: str, good: bool | None) -> Markup:
    kind = "" if good is None else " good" if good else " bad"
    return join(" ", tag("span", text, class_=f"badge{kind}"))


def _judgement(good: bool) -> Markup:
    return _badge("ok" if good else "fails", good)


def _report(report: ParityReport, ident: str) -> Markup:
    parts = [
        _differences(report),
        _outputs(report),
        _tried(report),
        *_growths(report, ident),
        _self_test(report),
        _cases(report),
        _notes(report),
        _facts(report),
    ]
    return tag("article", _verdict(report, ident), *parts, id=ident, aria_labelledby=f"{ident}-name")


def _verdict(report: ParityReport, ident: str) -> Markup:
    answer = content.verdict(report)
    return tag(
        "div",
        tag("h2", content.clean(report.file), id=f"{ident}-name"),
        tag(
            "p",
            tag("span", "✓" if report else "✗", aria_hidden="true"),
            f" {answer[0].upper()}{answer[1:]}",
            class_="answer",
        ),
        tag("p", f"Compared with {content.clean(report.source)}: {content.summary(report)}."),
        class_=f"verdict {'good' if report else 'bad'}",
    )


def _section(title: str, *parts: str) -> Markup:
    return tag("section", tag("h3", title), *parts)


def _outputs(report: ParityReport) -> Markup:
    shown = content.rows(report)
    if not shown:
        return Markup()
    rows = [(join(row.output, _judgement(row.passed)), *row.cells[1:]) for row in shown]
    return _section("Outputs", _table("Each output where it came off worst", content.COLUMNS, rows))


def _tried(report: ParityReport) -> Markup:
    if not report.ranges:
        return Markup()
    return _section("Tried", tag("p", f"{content.ranges(report)}."))


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table whose rows become cards on a phone; roles are said, since some browsers forget them there."""
    head = tag("tr", *(tag("th", name, scope="col", role="columnheader") for name in columns), role="row")
    lines = (
        tag(
            "tr",
            tag("th", row[0], scope="row", role="rowheader"),
            *(
                tag("td", tag("span", text), role="cell", data_label=name)
                for name, text in zip(columns[1:], row[1:], strict=True)
            ),
            role="row",
        )
        for row in rows
    )
    return tag(
        "table",
        tag("caption", caption),
        tag("thead", head, role="rowgroup"),
        tag("tbody", *lines, role="rowgroup"),
        role="table",
    )


def _differences(report: ParityReport) -> Markup:
    """What did not run, where the file first differs, and why."""
    parts: list[Markup] = []
    stopped = content.errors(report)
    if stopped:
        parts.append(_section("Failed to run", tag("ul", *(tag("li", text) for text in stopped))))
    if not report.judged:
        parts.append(_section("Nothing was judged", tag("p", "No case could be judged.")))
    if report.location is not None:
        parts.append(_section("First difference", tag("p", content.clean(report.location), class_="where")))
    if report.causes:
        causes = (
            tag(
                "li",
                tag("strong", content.clean(cause.name)),
                tag("p", content.clean(cause.evidence)),
                tag("p", tag("b", "Fix: "), content.clean(cause.fix)),
            )
            for cause in report.causes
        )
        parts.append(_section("Likely causes", tag("ol", *causes, class_="causes")))
    if report.survivors:
        survivors = (tag("li", content.survived(mutant)) for mutant in report.survivors)
        told = "With these mistakes in it the file would have passed as well, so that the comparison proves little."
        parts.append(_section("Wrong copies that passed for right", tag("p", told), tag("ul", *survivors)))
    return join(*parts)


def _growths(report: ParityReport, ident: str) -> Iterator[Markup]:
    found = content.charted(report)
    for index, (case, tensor, growth) in enumerate(found[:_MOST_CHARTS]):
        yield _growth(case, tensor, growth, f"{ident}-g{index}")
    if len(found) > _MOST_CHARTS:
        told = "The outputs above tell most; --json has the errors of all."
        yield _section(f"{len(found) - _MOST_CHARTS} further outputs over time", tag("p", told))


def _growth(case: CaseResult, tensor: TensorResult, growth: Growth, ident: str) -> Markup:
    keys = [("file", "this file"), ("own", "PyTorch's own"), ("bound", "the bound")]
    if has_unbounded(growth):
        keys.append(("broken", "not finite"))
    legend = (tag("li", tag("i", class_=name, aria_hidden="true"), text) for name, text in keys)
    curves = tag(
        "figure",
        curve(growth, f"{ident}-c"),
        tag(
            "figcaption", tag("ul", *legend, class_="legend"), "The largest error over batch and features at each step."
        ),
    )
    heat = tag(
        "figure",
        heat_map(growth, f"{ident}-h"),
        tag("figcaption", "The largest error over the batch, by time step and feature. Past the mark, it fails."),
    )
    return _section(
        f"Error of {content.clean(tensor.output)} over time",
        tag("p", f"{len(growth.error)} steps, in the case {content.clean(case.label)}."),
        tag("div", curves, heat, class_="charts"),
    )


def _self_test(report: ParityReport) -> Markup:
    if not report.mutants:
        return Markup()
    rows = [
        (
            content.clean(mutant.name),
            content.outcome(mutant),
            content.number(mutant.ratio) if mutant.case else "-",
            content.clean(mutant.case) or "-",
        )
        for mutant in report.mutants
    ]
    return _section(
        "Self-test",
        tag("p", f"Would a wrong file have been seen? {content.tried(report)}."),
        _folded(
            content.counted(len(rows), "wrong copy", "wrong copies"),
            _table("What became of each", ("wrong copy", "outcome", "ratio", "at"), rows),
        ),
    )


def _folded(title: str, part: Markup) -> Markup:
    return tag("details", tag("summary", title), part)


def _cases(report: ParityReport) -> Markup:
    rows = [
        (
            join(
                content.clean(case.label),
                _badge("inconclusive", None) if case.inconclusive else _judgement(case.passed),
            ),
            _KINDS.get(case.kind, content.clean(case.kind)),
            _ratios(case),
        )
        for case in report.cases
    ]
    table = _table("Each case, with the ratio of each output", ("case", "run", "ratios"), rows)
    return _section("Cases", _folded(content.counted(len(rows), "case", "cases"), table))


def _ratios(case: CaseResult) -> str:
    if case.error:
        return content.clean(case.error)
    if case.inconclusive:
        return content.INCONCLUSIVE
    return ", ".join(f"{content.clean(tensor.output)} {content.number(tensor.ratio)}" for tensor in case.tensors)


def _notes(report: ParityReport) -> Markup:
    if not report.notes:
        return Markup()
    return _section("Notes", tag("ul", *(tag("li", content.clean(note)) for note in report.notes)))


def _facts(report: ParityReport) -> Markup:
    facts = [("provider", content.clean(report.provider)), ("took", f"{report.seconds:.1f} s")]
    facts += [(content.clean(name), content.clean(version)) for name, version in report.versions.items()]
    return tag("footer", tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts)))
