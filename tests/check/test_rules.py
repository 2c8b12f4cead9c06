"""Every rule: it speaks where it should, is silent once its fix is applied, and can be explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstm_onnx.check import CheckReport, check
from lstm_onnx.check.rule import SEVERITIES
from lstm_onnx.check.rules import RuleList, all_rules, find_rule
from lstm_onnx.errors import ConfigError

from .violations import CASES, OTHERS, Case, base, nothing

RULES = all_rules()


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with AVX2, without VNNI and without a GPU."""
    monkeypatch.setattr("lstm_onnx.check.rules.precision.cpu_flags", lambda: frozenset({"avx2"}))
    for module in ("runtime.providers", "check.examine", "check.execution"):
        monkeypatch.setattr(f"lstm_onnx.{module}.cuda_unavailable", lambda: "no GPU")


def checked(folder: Path, case: Case, *, mended: bool) -> CheckReport:
    edits = (case.breaks, case.mends) if mended else (case.breaks,)
    path = base(folder, case, lambda model: [edit(model) for edit in edits])
    return check(path, provider=case.provider)


def told(report: CheckReport) -> set[str]:
    return {finding.rule for finding in report.findings if finding.violated}


def test_every_rule_has_a_file_that_violates_it():
    assert set(CASES) | set(OTHERS) == {rule.name for rule in RULES}
    assert not set(CASES) & set(OTHERS)


@pytest.mark.usefixtures("old_cpu")
@pytest.mark.parametrize("name", CASES)
def test_a_rule_speaks_and_falls_silent_once_it_is_mended(name: str, tmp_path: Path):
    case = CASES[name]
    report = checked(tmp_path, case, mended=False)
    assert name in told(report), str(report)
    rule = find_rule(name)
    findings = [finding for finding in report.findings if finding.rule == name and finding.violated]
    assert {finding.severity for finding in findings} == {rule.severity}
    assert all(finding.fix and finding.id == rule.id for finding in findings)
    assert bool(report) is not any(find_rule(item).severity == "error" for item in told(report))
    mended = checked(tmp_path, case, mended=True)
    assert name not in told(mended), str(mended)
    # The fix breaks nothing else.
    assert told(mended) <= told(report), str(mended)
    assert mended, str(mended)
    assert name in {*mended.silent, *(finding.rule for finding in mended.findings if finding.passed)}


@pytest.mark.usefixtures("old_cpu")
def test_of_the_plain_file_no_rule_has_anything_to_say(tmp_path: Path):
    report = check(base(tmp_path, Case(nothing), nothing), provider="auto", require=True, strict=True)
    assert report, str(report)
    assert not told(report)
    always = {rule.name for rule in RULES if not rule.target}
    assert {*report.silent, *(finding.rule for finding in report.findings)} == always


@pytest.mark.usefixtures("old_cpu")
def test_strict_makes_warnings_errors(tmp_path: Path):
    path = base(tmp_path, Case(nothing), CASES["clip"].breaks)
    lenient, strict = check(path, provider="cpu"), check(path, provider="cpu", strict=True)
    assert lenient
    assert [finding.rule for finding in lenient.warnings] == ["clip"]
    assert not strict
    assert [finding.rule for finding in strict.failures] == ["clip"]
    assert "1 warning" in str(lenient)
    # What is told as information fails in no case.
    half = base(tmp_path, CASES["float16-on-cpu"], nothing)
    assert check(half, provider="cpu", strict=True)


@pytest.mark.parametrize("text", ["LO202", "lo202", "frozen-literal", "Frozen_Literal"])
def test_a_rule_that_is_ignored_fails_nothing(text: str, tmp_path: Path):
    path = base(tmp_path, Case(nothing), CASES["frozen-literal"].breaks)
    assert {finding.rule for finding in check(path, provider="cpu").failures} == {"frozen-literal", "runnable"}
    report = check(path, provider="cpu", ignore=[text, "LO502"])
    assert report, str(report)
    assert report.ignored == ("frozen-literal", "runnable")
    assert "ignored: frozen-literal, runnable" in str(report)
    assert check(path, provider="cpu", ignore=["LO502"]).failures[0].rule == "frozen-literal"


def test_rules_have_what_their_readers_need():
    assert [rule.id for rule in RULES] == sorted({rule.id for rule in RULES})
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.id[:2] == "LO"
        assert rule.id[2:].isdigit()
        assert len(rule.id) == 5
        assert rule.severity in SEVERITIES
        assert rule.name == rule.name.lower().replace("_", "-").replace(" ", "-")
        assert min(len(rule.summary), len(rule.why), len(rule.fix)) > 10
        text = str(rule)
        assert rule.id in text
        assert "Fix: " in text
        assert max(map(len, text.splitlines())) <= 96


def test_the_table_has_a_line_for_each_rule():
    lines = str(RuleList(RULES)).splitlines()
    assert len(lines) == len(RULES)
    assert all(rule.id in line and rule.summary in line for rule, line in zip(RULES, lines, strict=True))


def test_a_rule_is_found_by_id_or_name_and_the_closest_is_suggested():
    assert find_rule(" lo104 ") is find_rule("unknown-operator")
    for text, closest in (
        ("LO37", "LO307 lengths-ignored"),
        ("LO4O1", "LO401 layout"),
        ("resource_bom", "LO106 resource-bomb"),
    ):
        with pytest.raises(ConfigError) as raised:
            find_rule(text)
        said = f'no rule is called "{text}"; did you mean {closest}? `lstm-onnx check --rules` lists all'
        assert str(raised.value) == said
    with pytest.raises(ConfigError, match='no rule is called "LO999"; `lstm-onnx check --rules` lists all'):
        find_rule("LO999")
    with pytest.raises(ConfigError, match="LO999"):
        check("no matter", ignore=["LO999"])
