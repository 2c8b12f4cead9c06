"""Writes reports as JUnit XML, which Jenkins, GitLab and others read.

A report is a test suite, with one test case for each case and each mutant of the self-test.  A suite has a failure or
an error if and only if its report does not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ..tolerances import K
from .content import INCONCLUSIVE, clean, failures, outcome, ranges, row, survived
from .table import plain, table

if TYPE_CHECKING:
    from ..results import CaseResult, MutantResult, Results


@dataclass(frozen=True)
class _Test:
    """`result` is "failure", "error", "skipped", or "" for a pass; `kind`, `message` and `text` are its details."""

    name: str
    result: str = ""
    kind: str = ""
    message: str = ""
    text: str = ""


def document(reports: Sequence[Results]) -> bytes:
    """The XML, in UTF-8; the same for the same reports."""
    suites = [_suite(report) for report in reports]
    root = Element("testsuites", name="lstm-onnx verify")
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    root.set("time", f"{sum(report.seconds for report in reports):.3f}")
    root.extend(suites)
    indent(root)
    written: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _suite(report: Results) -> Element:
    tests = list(_with_unique_names(_tests(report)))
    name = f"{clean(report.source)}: {clean(report.file)} on {clean(report.provider)}"
    suite = Element("testsuite", name=name, tests=str(len(tests)))
    for name, result in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(test.result == result for test in tests)))
    suite.set("time", f"{report.seconds:.3f}")
    properties = SubElement(suite, "properties")
    tried = {"tried": ranges(report)} if report.ranges else {}
    known = {"file": report.file, "source": report.source, "provider": report.provider, "limit": f"{K:g}"}
    about = {"digest": report.digest, "command": report.command, "commit": report.commit}
    about = {name: value for name, value in about.items() if value}
    for name, value in {**known, **tried, **about, **report.versions}.items():
        SubElement(properties, "property", name=clean(name), value=clean(value))
    if report.date:
        suite.set("timestamp", report.date)
    # Readers identify cases only by class and name, and take the part before a dot as a package.
    owner = ".".join(clean(name).replace(".", "_") for name in (report.source, report.file, report.provider))
    for test in tests:
        case = SubElement(suite, "testcase", name=test.name, classname=owner)
        if test.result:
            SubElement(case, test.result, type=test.kind, message=test.message).text = test.text or None
    SubElement(suite, "system-out").text = plain(report)
    return suite


def _tests(report: Results) -> Iterator[_Test]:
    yield from map(_case, report.cases)
    yield from map(_mutant, report.mutants)
    if not report.judged:
        yield _Test("verdict", "failure", "inconclusive", "no case could be judged", plain(report))


def _with_unique_names(tests: Iterable[_Test]) -> Iterator[_Test]:
    """Tests with unique names, since readers merge those of the same name."""
    seen: Counter[str] = Counter()
    for test in tests:
        seen[test.name] += 1
        count = seen[test.name]
        yield test if count == 1 else replace(test, name=f"{test.name} ({count})")


def _case(case: CaseResult) -> _Test:
    name = clean(case.label)
    if case.error:
        return _Test(name, "error", "run", clean(case.error))
    if case.inconclusive:
        return _Test(name, "skipped", "inconclusive", INCONCLUSIVE)
    if case.passed:
        return _Test(name)
    rows = [row(case, tensor) for tensor in case.tensors]
    message = f"not in parity, error {failures(case)}; the largest ratio that passes is {K:g}"
    return _Test(name, "failure", "parity", message if rows else "no output was compared", "\n".join(table(rows)))


def _mutant(mutant: MutantResult) -> _Test:
    name = f"rejects {clean(mutant.name)}"
    if mutant.outcome == "rejected":
        return _Test(name)
    if mutant.outcome == "equivalent":
        return _Test(name, "skipped", "equivalent", outcome(mutant))
    return _Test(name, "failure", "survived", f"a mutant survived: {survived(mutant)}")
