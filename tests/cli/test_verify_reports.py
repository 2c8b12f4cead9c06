"""`lstm-onnx verify` with --junit, --html and --json, and where it runs in GitHub Actions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from .conftest import Done

pytestmark = pytest.mark.sweep(3)

Run = Callable[..., Done]
QUICK = ("--provider", "cpu", "--threads", "1", "--mutants", "none")


@pytest.fixture
def source(toml: Callable[..., Path], run_cli: Run) -> str:
    """net.toml, beside a right file of it and a wrong one."""
    toml()
    run_cli("export", "net.toml", "-o", "m.onnx")
    model = onnx.load("m.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "l0/R")
    weight.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(weight), 3, axis=1), "l0/R"))
    onnx.save(model, "wrong.onnx")
    return "net.toml"


def _suites(path: str) -> list[ET.Element]:
    return list(ET.parse(path).getroot())  # noqa: S314 - our own


def test_files_are_written_beside_the_table(run_cli: Run, source: str) -> None:
    plain = run_cli("verify", source, "m.onnx", *QUICK)
    done = run_cli("verify", source, "m.onnx", *QUICK, "--junit", "a.xml", "--html", "a.HTML")
    assert done.code == 0, done.err
    assert done.out == plain.out
    assert done.err == "wrote a.xml\nwrote a.HTML\n"
    (suite,) = _suites("a.xml")
    assert suite.get("name") == "net.toml: m.onnx on cpu"
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    assert int(suite.get("tests", "0")) > 10
    assert float(suite.get("time", "0")) > 0
    versions = {item.get("name") for item in suite.findall("properties/property")}
    assert {"lstm-onnx", "torch", "onnxruntime"} <= versions
    page = Path("a.HTML").read_text(encoding="utf-8")
    assert "In parity with PyTorch" in page
    assert sorted(path.name for path in Path.cwd().iterdir() if path.suffix.lower() in (".xml", ".html", ".tmp")) == [
        "a.HTML",
        "a.xml",
    ]


def test_they_are_written_of_what_fails_too(run_cli: Run, source: str) -> None:
    done = run_cli("verify", source, "wrong.onnx", *QUICK, "--json", "--junit", "a.xml", "--html", "a.html")
    assert done.code == 1
    told = json.loads(done.out)
    assert told["passed"] is False
    (suite,) = _suites("a.xml")
    failed = {case.get("name") for case in suite.findall("testcase") if case.find("failure") is not None}
    assert failed == {case["case"] for case in told["cases"] if not case["passed"]}
    page = Path("a.html").read_text(encoding="utf-8")
    assert "NOT in parity with PyTorch" in page
    assert page.count('class="chart"') == 2


def test_several_reports_share_the_files(run_cli: Run, source: str) -> None:
    arguments = ("--precision", "float32", "--precision", "float16", "--junit", "a.xml", "--html", "a.html", "--json")
    done = run_cli("verify", source, *QUICK, *arguments)
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["reports"]) == 2
    names = [suite.get("name") for suite in _suites("a.xml")]
    assert names == [f"net.toml: a fresh export in {precision} on cpu" for precision in ("float32", "float16")]
    assert Path("a.html").read_text(encoding="utf-8").count("<article") == 2


def test_a_golden_file_has_reports_as_well(run_cli: Run, source: str) -> None:
    assert run_cli("verify", source, "m.onnx", *QUICK, "--golden", "m.npz").code == 0
    done = run_cli("verify", "wrong.onnx", "--golden", "m.npz", "--junit", "a.xml", "--html", "a.html")
    assert done.code == 1, done.err
    assert _suites("a.xml")[0].find("testcase/failure") is not None
    assert "NOT in parity" in Path("a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("option", "path", "words"),
    [
        ("--junit", "no/a.xml", "does not exist; make it first"),
        ("--html", "folder.html", "is a directory"),
        ("--html", "m.onnx", "end in .html"),
        ("--junit", "a.html", "end in .xml"),
    ],
)
def test_what_cannot_be_written_is_refused_first(run_cli: Run, source: str, option: str, path: str, words: str) -> None:
    Path("folder.html").mkdir()
    before = Path("m.onnx").read_bytes()
    done = run_cli("verify", "none.toml", option, path)  # what comes first is said
    assert done.code == 2
    assert f"{path}: " in done.err
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert Path("m.onnx").read_bytes() == before


def test_json_has_every_key(run_cli: Run, source: str) -> None:
    told = json.loads(run_cli("verify", source, "wrong.onnx", *QUICK, "--json").out)
    assert set(told) == {
        *("passed", "in_parity", "file", "source", "provider", "limit", "outputs", "location", "causes", "mutants"),
        *("cases", "ranges", "notes", "versions", "seconds", "schema", "digest", "date", "command", "commit"),
        *("precision", "drift", "reference", "runtime"),
    }
    output = told["outputs"]["output"]
    assert set(output) == {
        *("output", "error", "torch_error", "ratio", "where", "inconclusive", "problem", "case", "growth", "allowed")
    }
    assert set(output["growth"]) == {"error", "torch_error", "bound", "steps", "features", "heat"}
    assert output["ratio"] > told["limit"]
    assert set(told["cases"][0]) == {"case", "kind", "passed", "inconclusive", "error", "outputs"}


def test_on_github(run_cli: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    done = run_cli("verify", source, "m.onnx", *QUICK)
    assert (done.code, done.err) == (0, "")
    done = run_cli("verify", source, "wrong.onnx", *QUICK, "--json")
    assert done.code == 1
    assert json.loads(done.out)["passed"] is False  # annotations are on stderr
    (line,) = done.err.splitlines()
    assert line.startswith("::error file=net.toml,title=wrong.onnx on cpu%3A NOT in parity with PyTorch::wrong.onnx: ")
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert [text for text in summary.splitlines() if text.startswith("#")] == [
        "### ✅ m.onnx: in parity with PyTorch, net.toml",
        "### ❌ wrong.onnx: NOT in parity with PyTorch, net.toml",
    ]


def test_nothing_of_it_elsewhere(run_cli: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    done = run_cli("verify", source, "wrong.onnx", *QUICK)
    assert done.code == 1
    assert done.err == ""
    assert not (tmp_path / "summary.md").exists()
