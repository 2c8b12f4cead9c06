"""Every command and every Python example in the README is run, in the README's own order."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SETUP = "python3 -m venv .venv && . .venv/bin/activate &&\npip install -q -c constraints.txt -e '.[test]' &&\n"
TEST = ". .venv/bin/activate && python -m pytest\n"


def test_readme_commands_and_examples_run(tmp_path, script_environment):
    shutil.copytree(ROOT / "models", tmp_path / "models")
    ran = []
    for language, text in BLOCKS:
        if language == "sh" and text != TEST:
            command = ["bash", "-e", "-o", "pipefail", "-c", text.removeprefix(SETUP)]
        elif language == "python":
            command = [sys.executable, "-W", "error", "-c", text]
        else:
            continue
        done = subprocess.run(
            command, cwd=tmp_path, env=script_environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        ran.append((text, done.stdout))
    assert len(ran) >= 7
    first = ran[0][1]
    assert "in parity with PyTorch" in first
    forecast = [float(cell) for cell in first.splitlines()[-1].split(",")]
    assert len(forecast) == 11
    assert all(0 < value < 250 for value in forecast)
    assert len((tmp_path / "forecast.csv").read_text().splitlines()) == 1 + 309


def test_setup_and_test_commands_are_the_ones_that_ci_runs():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    first, second = (text for language, text in BLOCKS[:2] if language == "sh")
    assert first.startswith(SETUP)
    assert second == TEST
    for part in re.split(r"&&\s*", SETUP + TEST):
        assert not part.strip() or part.strip() in ci, part
    assert ci[-1] == "python -m pytest"


def test_every_command_is_in_the_readme_table():
    from lstm_onnx.cli import cli

    for name in cli.commands:
        assert f"| `lstm-onnx {name}" in README


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
