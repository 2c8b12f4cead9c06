"""The composite GitHub Action: its definition, and its scripts run by bash as a runner would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .parity_files import parity_files

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".github/actions/verify"
ACTION = yaml.safe_load((HOME / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")

bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")


@dataclass(frozen=True)
class Ran:
    code: int
    log: str
    outputs: dict[str, str]
    summary: str


@pytest.fixture
def step(tmp_path: Path, forking_environment: dict[str, str]) -> Callable[..., Ran]:
    """Run the script of a step, with inputs, as a runner does it in a job's workspace."""
    workspace, temporary = tmp_path / "work space", tmp_path / "runner's temp"
    shutil.copytree(parity_files(), workspace)
    temporary.mkdir()

    def run(name: str, path: str | None = None, **inputs: str) -> Ran:
        (found,) = (step for step in STEPS if step["name"] == name)
        script, output, summary = tmp_path / "script.sh", tmp_path / "output", tmp_path / "summary"
        script.write_text(found["run"], encoding="utf-8")
        output.write_bytes(b"")
        summary.write_bytes(b"")
        given = {name: item.get("default", "") for name, item in ACTION["inputs"].items()} | inputs
        environment = {
            **forking_environment,
            **{key: resolved(value, given) for key, value in found["env"].items()},
            "GITHUB_ACTION_PATH": str(HOME),
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
            "GITHUB_WORKSPACE": str(workspace),
            "RUNNER_TEMP": str(temporary),
        }
        if path is not None:
            environment["PATH"] = path
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", script],
            cwd=workspace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        lines = output.read_text(encoding="utf-8").splitlines()
        outputs = dict(line.split("=", 1) for line in lines)
        return Ran(done.returncode, done.stdout, outputs, summary.read_text(encoding="utf-8"))

    return run


def resolved(value: str, inputs: dict[str, str]) -> str:
    """A value of `env`, which may hold no expression but inputs."""
    return EXPRESSION.sub(lambda found: inputs[found[1].removeprefix("inputs.")], value)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def test_the_definition_is_whole():
    assert set(ACTION) == {"name", "description", "author", "branding", "inputs", "outputs", "runs"}
    assert ACTION["runs"]["using"] == "composite"
    for item in ACTION["inputs"].values():
        assert set(item) == {"description", "default"}
        assert isinstance(item["default"], str)  # a runner gives scripts nothing else
    for item in ACTION["outputs"].values():
        assert set(item) == {"description", "value"}
    for step in STEPS:
        assert set(step) <= {"name", "id", "if", "shell", "env", "run", "uses", "with"}
        assert ("run" in step) != ("uses" in step)
        assert step.get("shell") == ("bash" if "run" in step else None)
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])


def test_every_expression_names_what_there_is():
    used = set()
    ids = {step["id"] for step in STEPS if "id" in step}
    for text in strings(ACTION):
        for expression in EXPRESSION.findall(text):
            for context, name in re.findall(r"(inputs|steps)\.([\w-]+)", expression):
                assert name in (ACTION["inputs"] if context == "inputs" else ids), expression
                used |= {name} if context == "inputs" else set()
    assert used == set(ACTION["inputs"])


def test_no_input_is_written_into_a_script():
    for step in STEPS:
        assert "${{" not in step.get("run", "")
        for value in step.get("env", {}).values():
            assert EXPRESSION.sub("", value) == ""


def test_uploads_only_when_asked():
    (upload,) = (step for step in STEPS if "upload-artifact" in step.get("uses", ""))
    assert "inputs.artifact != ''" in upload["if"]
    assert ACTION["inputs"]["artifact"]["default"] == ""


INSTALLED = [
    ({}, ".[cpu,torch]"),
    ({"provider": "cuda"}, ".[gpu,torch]"),
    ({"golden": "net.npz"}, ".[cpu]"),
    ({"extras": "cuda,gpu"}, ".[cuda,gpu]"),
    ({"version": "1.2.3", "golden": "net.npz"}, "lstm-onnx[cpu]==1.2.3"),
    ({"version": '1"; touch injected; "'}, 'lstm-onnx[cpu,torch]==1"; touch injected; "'),
]


@bash
@pytest.mark.parametrize(("inputs", "wanted"), INSTALLED)
def test_what_is_installed(step: Callable[..., Ran], tmp_path: Path, inputs: dict[str, str], wanted: str):
    fake = tmp_path / "bin/python"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\npwd\nprintf "<%s>\\n" "$@"\n')
    fake.chmod(0o755)
    done = step("Install lstm-onnx", path=os.pathsep.join([str(fake.parent), os.environ["PATH"]]), **inputs)
    assert done.code == 0, done.log
    folder, *arguments = done.log.splitlines()
    assert arguments == ["<-m>", "<pip>", "<install>", "<--disable-pip-version-check>", f"<{wanted}>"]
    assert Path(folder).resolve() == (ROOT.resolve() if wanted.startswith(".") else (tmp_path / "work space").resolve())
    assert not list(tmp_path.rglob("injected"))


def assert_reports(done: Ran, *, failures: bool) -> None:
    suite = ET.parse(done.outputs["junit"]).getroot()  # noqa: S314 - our own
    assert bool(suite.findall(".//failure")) == failures
    assert "</html>" in Path(done.outputs["html"]).read_text(encoding="utf-8")
    assert any(line.startswith("::error file=") for line in done.log.splitlines()) == failures
    assert "in parity with PyTorch" in done.summary


@bash
def test_a_source_in_parity(step: Callable[..., Ran]):
    done = step("Verify", source="net.toml", file="net.onnx", mutants="none", args=" --threads 1\n--seed 3 ")
    assert (done.code, done.outputs["passed"]) == (0, "true"), done.log
    assert "in parity with PyTorch" in done.log
    assert_reports(done, failures=False)


@bash
def test_a_wrong_file_against_a_golden_file(step: Callable[..., Ran]):
    done = step("Verify", file="wrong.onnx", golden="net.npz")
    assert (done.code, done.outputs["passed"]) == (1, "false"), done.log
    assert_reports(done, failures=True)
    again = step("Verify", file="net.onnx", golden="net.npz")
    assert (again.code, again.outputs["passed"]) == (0, "true"), again.log
    assert again.outputs["junit"] != done.outputs["junit"]  # a job may use the action twice


BAD = [
    ({}, "::error title=lstm-onnx verify::source is missing"),
    ({"golden": "net.npz"}, "golden needs file"),
    ({"source": "net.toml", "golden": "net.npz"}, "leave one of them out"),
    ({"source": "nowhere.toml"}, "nowhere.toml: No such file"),
    ({"source": "--version"}, "--version"),
    ({"file": "$(touch injected)", "golden": "`touch injected`"}, "touch injected"),
    ({"source": "net.toml", "args": "; touch injected; $(touch injected)"}, "touch"),
    ({"source": "net.toml", "provider": "tpu"}, "tpu"),
]


@bash
@pytest.mark.parametrize(("inputs", "said"), BAD)
def test_what_cannot_be_verified_fails_and_runs_nothing_else(
    step: Callable[..., Ran], tmp_path: Path, inputs: dict[str, str], said: str
):
    done = step("Verify", **inputs)
    assert done.code == 2, done.log
    assert said in done.log
    assert "passed" not in done.outputs
    assert not list(tmp_path.rglob("injected"))
