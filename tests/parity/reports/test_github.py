from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lstm_onnx.parity.report import ParityReport
from lstm_onnx.parity.reports import github
from lstm_onnx.parity.reports.table import plain

from . import samples


def told(*reports: ParityReport, **environ: str) -> list[str]:
    lines: list[str] = []
    github.tell(reports, lines.append, {"GITHUB_ACTIONS": "true", **environ})
    return lines


def understood(line: str) -> tuple[str, dict[str, str], str]:
    """A command as the runner reads it: see its ActionCommand.TryParseV2."""
    assert line.startswith("::")
    info, _, data = line[2:].partition("::")
    name, _, properties = info.partition(" ")
    pairs = dict(pair.split("=", 1) for pair in properties.split(",") if pair)

    def unescaped(text: str, *codes: tuple[str, str]) -> str:
        for code, char in (("%0D", "\r"), ("%0A", "\n"), *codes, ("%25", "%")):
            text = text.replace(code, char)
        return text

    read = {key: unescaped(value, ("%3A", ":"), ("%2C", ",")) for key, value in pairs.items()}
    return name, read, unescaped(data)


@pytest.mark.parametrize("environ", [{}, {"GITHUB_ACTIONS": ""}, {"GITHUB_ACTIONS": "false"}])
def test_nothing_is_told_elsewhere(environ, tmp_path):
    path = tmp_path / "summary.md"
    github.tell([samples.failing], pytest.fail, {"GITHUB_STEP_SUMMARY": str(path), **environ})
    assert not path.exists()


def test_an_error_for_each_report_that_fails():
    lines = told(samples.passing, samples.failing, samples.unproven)
    assert [understood(line)[0] for line in lines] == ["error", "error"]
    _, properties, message = understood(lines[0])
    assert properties == {"title": "wrong.onnx on cpu: NOT in parity with PyTorch"}
    assert message == plain(samples.failing)
    assert understood(lines[1])[1]["title"].endswith("(NOT PROVEN)")


@pytest.mark.parametrize("report", samples.REPORTS.values(), ids=samples.REPORTS.keys())
def test_a_command_is_one_line_and_comes_back_whole(report):
    report = replace(report, file="100%0A, really: 50%", notes=("%25 %0D %3A, ::",))
    for line in told(report):
        assert "\n" not in line
        assert "\r" not in line
        name, properties, message = understood(line)
        assert (name, set(properties)) == ("error", {"title"})
        assert properties["title"].startswith("100%0A, really: 50% on ")
        assert message == plain(report)
    assert bool(told(report)) != bool(report)


def test_the_source_is_where_an_error_is_shown(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/net, the 1st.toml").touch()
    (tmp_path / "wrong.onnx").touch()
    monkeypatch.chdir(tmp_path / "models")
    report = replace(samples.failing, source="net, the 1st.toml", file="../wrong.onnx")
    (line,) = told(report, GITHUB_WORKSPACE=str(tmp_path))
    assert "file=models/net%2C the 1st.toml,title=" in line
    assert understood(line)[1]["file"] == "models/net, the 1st.toml"
    (line,) = told(replace(report, source="package.module:make"), GITHUB_WORKSPACE=str(tmp_path))
    assert understood(line)[1]["file"] == "wrong.onnx"
    # What the repository does not have is shown at the job.
    (line,) = told(report, GITHUB_WORKSPACE=str(tmp_path / "elsewhere"))
    assert "file" not in understood(line)[1]
    (line,) = told(replace(report, source="x" * 10_000, file="\0"), GITHUB_WORKSPACE=str(tmp_path))
    assert "file" not in understood(line)[1]


def test_a_message_has_an_end():
    many = replace(samples.stopped, notes=tuple(f"{index} {'x' * 300}" for index in range(500)))
    (line,) = told(many)
    assert len(line) < 25_000


def test_the_summary_is_added_to_what_is_there(tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("before\n\n", encoding="utf-8")
    told(samples.failing, samples.passing, GITHUB_STEP_SUMMARY=str(path))
    assert path.read_text(encoding="utf-8").splitlines() == [
        "before",
        "",
        "### ❌ wrong.onnx: NOT in parity with PyTorch, models/net.toml",
        "",
        "1 of 3 cases failed on cpu; an error may be up to 32 times PyTorch's own, and 32 roundings in any case",
        "",
        "|  | output | largest error | allowed error | PyTorch's own | ratio (max 32) | where |",
        "| :-- | :-- | --: | --: | --: | --: | :-- |",
        r"| ❌ | output | 0.5 | 4e-06 | 1.25e-07 | 4e+06 | \[3, 0, 2\] of batch 5, time 4, states |",
        r"| ❌ | hn | 0.125 | 4e-06 | 1.25e-07 | 1e+06 | \[0, 0, 2\] of batch 5, time 4, states |",
        r"| ✅ | cn | 7e-08 | 4e-06 | 1.25e-07 | 0.56 | \[0, 0, 2\] of batch 3, time 4, states |",
        "",
        "- **likely cause:** gate order of layer 1",
        "  - evidence: with it PyTorch gives the file's numbers",
        "  - fix: ONNX wants i,o,f,c",
        f"- **first differs** in {samples.failing.location}",
        "- **note:** PyTorch's own error is too large in some cases",
        "",
        "### ✅ net.onnx: in parity with PyTorch, models/net.toml",
        "",
        "2 cases on cpu; an error may be up to 32 times PyTorch's own, and 32 roundings in any case",
        "",
        "|  | output | largest error | allowed error | PyTorch's own | ratio (max 32) | where |",
        "| :-- | :-- | --: | --: | --: | --: | :-- |",
        r"| ✅ | output | 1.1e-07 | 4e-06 | 1.25e-07 | 0.88 | \[0, 0, 2\] of batch 1, time 1, states |",
        r"| ✅ | hn | 5e-08 | 4e-06 | 1.25e-07 | 0.4 | \[0, 0, 2\] of batch 3, time 4, states |",
        r"| ✅ | cn | 7e-08 | 4e-06 | 1.25e-07 | 0.56 | \[0, 0, 2\] of batch 3, time 4, states |",
        "",
        "- **self-test:** 3 mutants: 2 rejected, 1 proven equivalent",
        "- **note:** PyTorch's own error is too large in some cases",
        "",
    ]


def test_names_in_the_summary_are_no_markup():
    text = github.step_summary([samples.hostile])
    assert "<" not in text.replace("&lt;", "")
    assert "&lt;script>parent.hacked=1" in text
    assert r"\|\`a\`\|\*b\*\|\[c\](http" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    bare = [row.replace(r"\\", "").replace(r"\|", "") for row in rows]
    assert len(rows) > 3
    assert {row.count("|") for row in bare} == {8}


def test_a_summary_that_is_too_large_is_the_verdicts_alone():
    large = replace(samples.failing, notes=("x" * 399,) * 2000)
    text = github.step_summary([large, samples.passing])
    assert text == (
        "### ❌ wrong.onnx: NOT in parity with PyTorch, models/net.toml\n\n"
        "### ✅ net.onnx: in parity with PyTorch, models/net.toml\n\n"
    )


def test_a_summary_that_cannot_be_written_is_said_and_no_failure(tmp_path: Path):
    (line,) = told(samples.passing, GITHUB_STEP_SUMMARY=str(tmp_path))
    assert line == f"{tmp_path}: the step's summary was not written: Is a directory"
