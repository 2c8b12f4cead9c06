"""The report: what fails it, what is told, and how it reads."""

from __future__ import annotations

from lstm_onnx.check import CheckReport, Finding
from lstm_onnx.check.report import failed, passed, skipped, strictly, words
from lstm_onnx.runtime.providers import Placement


def report(*findings: Finding, **fields: object) -> CheckReport:
    return CheckReport("m.onnx", "cpu", findings, **fields)


def test_a_finding_has_its_rules_severity_and_fix():
    finding = failed("clip", "rnn", "too small")
    assert (finding.id, finding.severity, finding.mark) == ("LO404", "warning", "warn")
    assert finding.fix.startswith("train without the clip")
    assert failed("clip", "rnn", "too small", "mend it").fix == "mend it"
    assert strictly(finding).failed
    assert not finding.failed
    assert strictly(failed("loop-on-cuda", "", "slow")).mark == "note"
    assert [passed("clip", "so").mark, skipped("clip", "not tried").mark] == ["ok", "skip"]


def test_names_that_are_bytes_are_told_as_text():
    assert failed("clip", b"rnn\xff", "too small").where == "b'rnn\\xff'"  # type: ignore[arg-type]


def test_errors_fail_and_nothing_else_does():
    fine = passed("valid-onnx", "so")
    assert report(
        fine, failed("clip", "", "a warning"), failed("float16-on-cpu", "", "a note"), skipped("layout", "no")
    )
    assert not report(fine, failed("layout", "", "an error"))
    assert not report(skipped("layout", "nothing was tried"))


def test_the_table_has_the_worst_first_and_the_verdict_last():
    text = str(
        report(
            passed("valid-onnx", "so"),
            failed("clip", "rnn", "too small"),
            failed("layout", "rnn", "batch first"),
            skipped("runnable", "not tried"),
            failed("float16-on-cpu", "", "no faster"),
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
    many = report(passed("valid-onnx", "so"), *(failed("clip", f"rnn{index}", "too small") for index in range(20)))
    assert str(many).count("too small") == 12
    assert "8 more like these; --json has them all" in str(many)
    assert str(many).splitlines()[-1].endswith("20 warnings")
    assert len(many.to_dict()["findings"]) == 21  # type: ignore[arg-type]


def test_placements_are_told_where_they_are_required():
    placed = (Placement("", "LSTM", "CPUExecutionProvider"),)
    line = "      unnamed (LSTM) -> CPUExecutionProvider"
    assert line in str(report(passed("provider", "so"), placements=placed, required=True)).splitlines()
    assert line not in str(report(passed("provider", "so"), placements=placed)).splitlines()


def test_what_others_say_is_cut_to_a_line():
    assert words(ValueError("one\n  two")) == "one two"
    assert words(ValueError()) == "ValueError"
    assert len(words("word " * 1000)) <= 400
