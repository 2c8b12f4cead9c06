"""The README is short, its commands are those of CI, and every command and Python example in it is run."""

import re
from dataclasses import replace

from tests.docs.blocks import ROOT, blocks_of, prepare, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = blocks_of(README)
SETUP = "python3 -m venv .venv && . .venv/bin/activate &&\npip install -q -c constraints.txt -e '.[test]' &&\n"
TEST = ". .venv/bin/activate && python -m pytest\n"


def test_readme_commands_and_examples_run(tmp_path, forking_environment):
    prepare(tmp_path)
    ran = []
    for block in BLOCKS:
        if block.text == TEST:
            continue
        printed = run(replace(block, text=block.text.removeprefix(SETUP)), tmp_path, forking_environment)
        assert printed is not None, f"line {block.line}: {block.language} is not run"
        ran.append(printed)
    assert len(ran) == 2
    first = ran[0]
    assert "in parity with PyTorch" in first
    forecast = [float(cell) for cell in first.splitlines()[-1].split(",")]
    assert len(forecast) == 11
    assert all(0 < value < 250 for value in forecast)
    assert len((tmp_path / "forecast.csv").read_text().splitlines()) == 1 + 309


def test_setup_and_test_commands_are_the_ones_that_ci_runs():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    first, second = (block.text for block in BLOCKS[:2] if block.language == "sh")
    assert first.startswith(SETUP)
    assert second == TEST
    for part in re.split(r"&&\s*", SETUP + TEST):
        assert not part.strip() or part.strip() in ci, part
    assert ci[-1] == "python -m pytest"


def test_every_command_is_in_the_table_of_the_readme_and_of_the_page_on_commands():
    from lstm_onnx.cli import cli

    page = (ROOT / "lstm_onnx/docs/cli.md").read_text(encoding="utf-8")
    for name in cli.commands:
        assert f"| `lstm-onnx {name}" in README
        assert f"| `lstm-onnx {name}" in page


def test_readme_is_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 150
    for page in (ROOT / "lstm_onnx/docs").glob("*.md"):
        assert f"(lstm_onnx/docs/{page.name}" in README, page.name
