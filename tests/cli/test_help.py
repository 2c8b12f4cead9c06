"""``lstm-onnx help``: commands, topics, and what is printed where."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lstm_onnx.cli import cli
from lstm_onnx.cli.help import topics


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A folder of documentation."""
    folder = tmp_path / "package" / "docs"
    folder.mkdir(parents=True)
    (folder / "serving.md").write_text("# Serving\n\nMany streams at once.\n\nMore text.\n")
    (folder / "check.md").write_text("# Check\n\nEvery rule.\n")
    (folder / "picture.svg").write_text("<svg/>")
    monkeypatch.setattr("importlib.resources.files", lambda _: folder.parent)
    return folder


class Terminal:
    def isatty(self):
        return True


def test_every_command_and_topic_is_listed(run_cli, pages):
    done = run_cli("help")
    assert (done.code, done.err) == (0, "")
    for name in cli.commands:
        assert f"\n  {name} " in done.out
    assert done.out.endswith("Topics:\n  check    Every rule.\n  serving  Many streams at once.\n")


def test_a_command(run_cli, pages):
    done = run_cli("help", "export")
    assert done.code == 0
    assert done.out == run_cli("export", "--help").out


@pytest.mark.parametrize("name", ["serving", "SERVING", "serving.md"])
def test_a_topic(run_cli, pages, name):
    done = run_cli("help", name)
    assert (done.code, done.err) == (0, "")
    assert done.out == "# Serving\n\nMany streams at once.\n\nMore text.\n"


def test_a_command_that_is_a_topic_shows_both(run_cli, pages):
    done = run_cli("help", "check")
    assert done.out == f"{run_cli('check', '--help').out}\n# Check\n\nEvery rule.\n"


def test_a_command_of_two_words(run_cli):
    done = run_cli("help", "deploy", "web")
    assert (done.code, done.err) == (0, "")
    assert done.out == run_cli("deploy", "web", "--help").out
    for names in (("deploy", "wb"), ("export", "web")):
        done = run_cli("help", *names)
        assert (done.code, done.out) == (2, "")
        assert f"there is no command or topic {' '.join(names)!r}" in done.err


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("servin", "; did you mean 'serving'?"),
        ("expotr", "; did you mean 'export'?"),
        ("ser", "; did you mean 'serve'?"),
        ("x", ""),
    ],
)
def test_an_unknown_name(run_cli, pages, name, suggestion):
    done = run_cli("help", name)
    assert (done.code, done.out) == (2, "")
    assert f"there is no command or topic {name!r}{suggestion}" in done.err


def test_without_documentation(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    assert run_cli("help").code == 0
    assert run_cli("help", "serving").code == 2


def test_the_package_has_the_pages_of_its_folder():
    assert all(page.name == f"{topic}.md" for topic, page in topics().items())


def test_a_pager_shows_it_on_a_terminal_alone(run_cli, pages, tmp_path, monkeypatch):
    monkeypatch.setenv("PAGER", f"tee {tmp_path / 'paged.txt'}")
    assert run_cli("help", "serving").out.startswith("# Serving")
    assert not (tmp_path / "paged.txt").exists()
    monkeypatch.setattr("lstm_onnx.cli.streams.SafeStream.isatty", lambda _: True)
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert run_cli("help", "serving").out.startswith("# Serving")
    assert (tmp_path / "paged.txt").read_text().startswith("# Serving")
    for pager in ("no-such-pager", "less '"):
        monkeypatch.setenv("PAGER", pager)
        assert run_cli("help", "serving").out.startswith("# Serving")


def test_python_m(script_environment, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lstm_onnx", "--help"],
        cwd=tmp_path,
        env=script_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: lstm-onnx")
