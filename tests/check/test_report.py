"""The report: what fails it, what is told, and how it reads."""

from __future__ import annotations

from lstm_onnx.check import CheckReport, Finding
from lstm_onnx.check.rules import find_rule as rule
from lstm_onnx.onnxgraph import error_line
from lstm_onnx.runtime.providers import Placement


def report(*findings: Finding, **fields: object) -> CheckReport:
    return CheckReport("m.onnx", "cpu", findings, **fields)


def test_a_finding_has_its_rules_severity_and_fix():
    finding = rule("clip").violated("rnn", "too small")
    assert (finding.id, finding.severity, finding.mark) == ("LO404", "warning", "warn")
    assert finding.fix.startswith("train without the clip")
    assert rule("clip").violated("rnn", "too small", "mend it").fix == "mend it"
    assert finding.as_error().failed
    assert not finding.failed
    assert rule("loop-on-cuda").violated("", "slow").as_error().mark == "note"
    assert [rule("clip").passed("so").mark, rule("clip").skipped("not tried").mark] == ["ok", "skip"]


def test_names_that_are_bytes_are_told_as_text():
    assert rule("clip").violated(b"rnn\xff", "too small").where == "b'rnn\\xff'"  # type: ignore[arg-type]


def test_errors_fail_and_nothing_else_does():
    fine = rule("valid-onnx").passed("so")
    assert report(
        fine,
        rule("clip").violated("", "a warning"),
        rule("float16-on-cpu").violated("", "a note"),
        rule("layout").skipped("no"),
    )
    assert not report(fine, rule("layout").violated("", "an error"))
    assert not report(rule("layout").skipped("nothing was tried"))


def test_the_table_has_the_worst_first_and_the_verdict_last():
    text = str(
        report(
            rule("valid-onnx").passed("so"),
            rule("clip").violated("rnn", "too small"),
            rule("layout").violated("rnn", "batch first"),
            rule("runnable").skipped("not tried"),
            rule("float16-on-cpu").violated("", "no faster"),
            silent=("bfloat16", "provider"),
            ignored=("metadata",),
        )
    )
    lines = text.splitlines()
    assert [line.split()[0] for line in lines] == (
        ["FAIL", "fix:", "warn", "fix:", "note", "fix:", "skip", "ok", "ok", "ignored:", "why:", "m.onnx:"]
    )
    assert lines[0].startswith("FAIL  LO401 layout          rnn: batch first")
    assert lines[-4] == "ok    2 further rules found nothing"
    assert lines[-2] == "why: lstm-onnx check --explain LO401"
    assert lines[-1] == "m.onnx: FAILED (LO401 layout) on cpu, 1 warning"


def test_a_rule_that_finds_much_is_cut_short_and_json_has_it_all():
    many = report(
        rule("valid-onnx").passed("so"),
        *(rule("clip").violated(f"rnn{index}", "too small") for index in range(20)),
    )
    assert str(many).count("too small") == 12
    assert "8 more like these; --json lists them all" in str(many)
    assert str(many).splitlines()[-1].endswith("20 warnings")
    assert len(many.to_dict()["findings"]) == 21  # type: ignore[arg-type]


def test_placements_are_told_where_they_are_required():
    placed = (Placement("", "LSTM", "CPUExecutionProvider"),)
    line = "      unnamed (LSTM) -> CPUExecutionProvider"
    assert line in str(report(rule("provider").passed("so"), placements=placed, required=True)).splitlines()
    assert line not in str(report(rule("provider").passed("so"), placements=placed)).splitlines()


def test_what_others_say_is_cut_to_a_line():
    assert error_line(ValueError("one\n  two")) == "one two"
    assert error_line(ValueError()) == "ValueError"
    assert len(error_line("word " * 1000)) <= 400
