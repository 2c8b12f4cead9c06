"""The contributor pages and the changelog: every path that they name exists, and the versions agree."""

from __future__ import annotations

import re
import tomllib

import pytest

import lstm_onnx
from tests.docs.blocks import ROOT, blocks_of

PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")
_PATH = re.compile(r"`((?:lstm_onnx|tests|models|\.github|\.ci)/[\w./-]*)")


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def paths_of(page: str) -> list[str]:
    return _PATH.findall((ROOT / ".github" / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_exists(page):
    assert [path for path in paths_of(page) if not (ROOT / path).exists()] == []


def test_the_paths_are_found():
    assert {"lstm_onnx/exporter", "lstm_onnx/docs"} <= set(paths_of("ARCHITECTURE.md"))
    assert "lstm_onnx/data/formats.py" in paths_of("CONTRIBUTING.md")


def test_the_diagram_has_every_package():
    layers = pyproject()["tool"]["importlinter"]["contracts"][0]["layers"]
    blocks = blocks_of((ROOT / ".github/ARCHITECTURE.md").read_text(encoding="utf-8"))
    (diagram,) = (block.text for block in blocks if block.language == "mermaid")
    assert set(re.findall(r"\w+", " ".join(layers))) <= set(re.findall(r"\w+", diagram))


def test_the_changelog_has_a_dated_section_for_the_version_and_one_for_what_comes():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.*?)\](?: - (\d{4}-\d{2}-\d{2}))?$", text, flags=re.MULTILINE)
    assert sections[0] == ("Unreleased", "")
    assert all(date for _, date in sections[1:])
    assert lstm_onnx.__version__ in [version for version, _ in sections]
    for name, _ in sections:
        assert re.search(rf"^\[{re.escape(name)}\]: https://", text, flags=re.MULTILINE), name


def test_the_oldest_versions_are_those_that_pyproject_allows():
    project = pyproject()["project"]
    wanted = list(project["dependencies"])
    for extra in ("gpu", "torch", "parquet", "plot"):
        wanted += project["optional-dependencies"][extra]
    least = {}
    for requirement in wanted:
        name, version = re.match(r"([\w-]+)>=([\d.]+)", requirement).groups()
        least[name] = version
    lines = (ROOT / ".github/constraints/oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pinned.keys() == least.keys()
    assert {name: series(version) for name, version in pinned.items()} == {
        name: series(version) for name, version in least.items()
    }


def series(version: str) -> tuple[int, int]:
    """The first two numbers of a version: the oldest that exists of a series may be its second."""
    first, second = [*map(int, version.split(".")), 0][:2]
    return first, second
