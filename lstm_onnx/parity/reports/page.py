"""Writes reports as one self-contained HTML page, without scripts, for phones and desktops, light and dark mode.

The page is laid out by the templates beside this module, which escape every text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from types import SimpleNamespace
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import content
from .charts import curve, has_unbounded, heat_map

if TYPE_CHECKING:
    from ..criterion import Growth, TensorResult
    from ..results import CaseResult, MutantResult, Results

_KINDS = {
    "whole": "in one call",
    "chunks": "in chunks",
    "pool": "in a pool",
    "steps": "in short windows",
    "data": "on your data",
    "values": "on chosen values",
    "sweep": "in many calls",
    "stored": "number by number",
    "layers": "layer by layer",
    "rows": "bit by bit",
    "drift": "against your limit",
}
"""How a case was run, by `results.KINDS`."""
_MOST_CHARTS, _MOST_FAILING = 6, 20
"""The most charts and the most unfolded cases of a report, so that the page stays small."""
_BETWEEN_TAGS = re.compile(r">\n\s*<")


def page(reports: Sequence[Results]) -> str:
    """The page, the same for the same reports.

    Its security policy admits the page's style by its digest and nothing else, so that no name in a file could run or
    load anything, even if it were not escaped.
    """
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _render(
        "page.html",
        title=_title(reports),
        heading="Parity with PyTorch"
        if any(report.reference == "PyTorch" for report in reports)
        else "Comparison with the float32 file",
        style=Markup(style),  # noqa: S704 - our own
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        views=[_view(report, f"r{index}") for index, report in enumerate(reports)],
    ).replace("<html ", "<!DOCTYPE html>\n<html ", 1)


def summary_html(report: Results) -> str:
    """The verdict, the causes and the outputs of a report, for notebooks."""
    return _render("summary.html", view=_view(report, "r0"))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lstm_onnx.parity.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = (content.clean, content.columns, content.drift_rows, content.errors, content.facts, content.ranges)
    environment.filters |= {text.__name__: text for text in (*texts, content.summary, content.tried)}
    return environment


def _render(template: str, **values: object) -> str:
    # Texts are one line each, so a line break between two tags comes from a template.
    return f"{_BETWEEN_TAGS.sub('><', _environment().get_template(template).render(**values).strip())}\n"


def _title(reports: Sequence[Results]) -> str:
    if len(reports) == 1:
        return content.headline(reports[0])
    names = dict.fromkeys(content.clean(report.source) for report in reports)
    return f"{sum(map(bool, reports))} of {len(reports)} pass: {', '.join(names)}"


def _view(report: Results, ident: str) -> SimpleNamespace:
    """What the templates show of a report."""
    verdict = content.verdict(report)
    failing = [case for case in report.judged if not case.passed and not case.error]
    charted = content.charted(report)
    charts = [_chart(*found, f"{ident}-g{index}") for index, found in enumerate(charted[:_MOST_CHARTS])]
    # The first difference has its chart directly below it, if there is one.
    located = report.location is not None and (report.location.case, report.location.output)
    first = int(any((case.label, tensor.output) == located for case, tensor, _ in charted[:1]))
    return SimpleNamespace(
        report=report,
        ident=ident,
        passed=bool(report),
        verdict=verdict,
        answer=f"{verdict[0].upper()}{verdict[1:]}",
        survivors=[content.survived(mutant) for mutant in report.survivors],
        not_proven=f"{content.NOT_PROVEN[0].upper()}{content.NOT_PROVEN[1:]}.",
        outputs=[(row.output, _judgement(row.passed), row.cells[1:]) for row in content.rows(report)],
        failing=[
            (content.clean(case.label), _judgement(False), (_kind(case), content.failures(case)))
            for case in failing[:_MOST_FAILING]
        ],
        more_failing=max(len(failing) - _MOST_FAILING, 0),
        first_charts=charts[:first],
        charts=charts[first:],
        more_charts=max(len(charted) - _MOST_CHARTS, 0),
        mutants=list(map(_mutant_row, report.mutants)),
        cases=list(map(_case_row, report.cases)),
    )


def _mutant_row(mutant: MutantResult) -> tuple[str, None, tuple[str, str, str]]:
    ratio = content.number(mutant.ratio) if mutant.case else "-"
    return content.clean(mutant.name), None, (content.outcome(mutant), ratio, content.clean(mutant.case) or "-")


def _case_row(case: CaseResult) -> tuple[str, tuple[str, bool | None], tuple[str, str]]:
    badge = ("inconclusive", None) if case.inconclusive else _judgement(case.passed)
    return content.clean(case.label), badge, (_kind(case), _ratios(case))


def _judgement(good: bool) -> tuple[str, bool]:
    """A badge."""
    return ("ok" if good else "fails"), good


def _kind(case: CaseResult) -> str:
    return _KINDS.get(case.kind, content.clean(case.kind))


def _ratios(case: CaseResult) -> str:
    if case.error:
        return content.clean(case.error)
    if case.inconclusive:
        return content.INCONCLUSIVE
    return ", ".join(f"{content.clean(tensor.output)} {content.number(tensor.ratio)}" for tensor in case.tensors)


def _chart(case: CaseResult, tensor: TensorResult, growth: Growth, ident: str) -> SimpleNamespace:
    legend = [("file", "this file"), ("own", "PyTorch's own"), ("bound", "the bound")]
    if has_unbounded(growth):
        legend.append(("broken", "not finite"))
    return SimpleNamespace(
        output=content.clean(tensor.output),
        steps=len(growth.error),
        case=content.clean(case.label),
        curve=curve(growth, f"{ident}-c"),
        heat_map=heat_map(growth, f"{ident}-h"),
        legend=legend,
    )
