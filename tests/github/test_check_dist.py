"""The check of built distributions: what it accepts, and what it finds."""

from __future__ import annotations

import importlib.util
import tarfile
import zipfile

import pytest

from tests.docs.blocks import ROOT

SPEC = importlib.util.spec_from_file_location("check_dist", ROOT / ".github/scripts/check_dist.py")
check_dist = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(check_dist)
README = "# lstm-onnx · ONNX\n"
INFO = "lstm_onnx-0.1.0.dist-info"
METADATA = "Metadata-Version: 2.4\nName: lstm-onnx\nDescription-Content-Type: text/markdown\n\n"
ENTRY_POINTS = "[console_scripts]\nlstm-onnx = lstm_onnx.cli:main\n\n[pytest11]\nlstm_onnx = lstm_onnx.pytest_plugin\n"


@pytest.fixture
def root(tmp_path):
    """A repository of two files."""
    (tmp_path / "lstm_onnx/docs").mkdir(parents=True)
    (tmp_path / "lstm_onnx/__init__.py").write_text("")
    (tmp_path / "lstm_onnx/docs/export.md").write_text("# Export\n")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    return tmp_path


def wheel(folder, *, without=(), extra=(), description=README, entry_points=ENTRY_POINTS):
    path = folder / "lstm_onnx-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in {"lstm_onnx/__init__.py", "lstm_onnx/docs/export.md", *extra} - set(without):
            archive.writestr(name, "")
        archive.writestr(f"{INFO}/METADATA", METADATA + description)
        archive.writestr(f"{INFO}/entry_points.txt", entry_points)
    return path


def test_a_complete_wheel_is_fine(root):
    assert list(check_dist.wheel_problems(wheel(root), root)) == []


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ({"without": ["lstm_onnx/docs/export.md"]}, "lstm_onnx/docs/export.md is missing"),
        ({"extra": ["tests/conftest.py"]}, "tests/conftest.py does not belong there"),
        ({"description": "# another\n"}, "the description is not README.md"),
        ({"entry_points": ""}, "the command or the pytest plugin is missing"),
    ],
)
def test_what_is_wrong_with_a_wheel_is_named(root, made, problem):
    assert list(check_dist.wheel_problems(wheel(root, **made), root)) == [problem]


def test_an_sdist_has_what_its_tests_need(tmp_path):
    path = tmp_path / "lstm_onnx-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(ROOT / "pyproject.toml", "lstm_onnx-0.1.0/pyproject.toml")
    problems = list(check_dist.sdist_problems(path))
    assert "tests/conftest.py is missing" in problems
    assert not any(problem.startswith("pyproject.toml") for problem in problems)


def test_all_files_that_say_owner_are_looked_at():
    files = [ROOT / "pyproject.toml", ROOT / "CHANGELOG.md", ROOT / "README.md"]
    files += [*(ROOT / "lstm_onnx/docs").glob("*.md"), *(ROOT / ".github").rglob("*.yml")]
    naming = {file.relative_to(ROOT).as_posix() for file in files if "github.com/OWNER" in file.read_text("utf-8")}
    assert naming <= set(check_dist._WITH_OWNER)


def test_a_release_needs_its_tag_its_date_and_its_owner(root):
    (root / "CHANGELOG.md").write_text("## [0.1.0] - 2026-11-28\n")
    (root / "pyproject.toml").write_text("https://github.com/somebody/lstm-onnx\n")
    (root / "lstm_onnx/docs/verify-in-ci.md").write_text("")
    (root / ".github/ISSUE_TEMPLATE").mkdir(parents=True)
    (root / ".github/ISSUE_TEMPLATE/config.yml").write_text("")
    assert list(check_dist.release_problems("v0.1.0", "0.1.0", root)) == []
    (root / "pyproject.toml").write_text("https://github.com/OWNER/lstm-onnx\n")
    assert [problem.split()[0] for problem in check_dist.release_problems("v0.1.0", "0.1.0", root)] == [
        "pyproject.toml"
    ]
    problems = list(check_dist.release_problems("v0.2.0", "0.2.0.dev1", root))
    assert problems[0] == "the tag is v0.2.0, and the version is 0.2.0.dev1"
    assert problems[1] == "CHANGELOG.md has no dated section [0.2.0.dev1]"
