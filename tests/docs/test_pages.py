"""Every page of lstm_onnx/docs: its form, its links, and all of its code, run."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

import lstm_onnx

from .blocks import ROOT, blocks_of, prepare, run

PAGES = sorted((ROOT / "lstm_onnx" / "docs").glob("*.md"))
TOPICS = (
    *(
        "bench",
        "browsers",
        "check",
        "cli",
        "data",
        "engines",
        "export",
        "formats",
        "generation",
        "install",
        "int8",
        "loops",
        "many-machines",
        "models",
        "runtime",
        "security",
        "serving",
    ),
    "real-models",
    "repair",
    *("streaming", "to-torch", "verify", "verify-in-ci", "when-export-refuses", "without-lstm-onnx"),
)
RUN = {"python", "sh", "console", "toml"}
LANGUAGES = RUN | {"yaml", "text", "json", "javascript", "csharp", "java", "cpp", "mermaid"}
DOCUMENTS = [*PAGES, ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_topic_has_its_page():
    assert sorted(page.stem for page in PAGES) == sorted(TOPICS)


def test_pages_are_part_of_the_package():
    shipped = resources.files(lstm_onnx) / "docs"
    assert {page.name for page in PAGES} <= {entry.name for entry in shipped.iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_starts_with_its_title_and_one_sentence(page):
    title, blank, sentence, after = page.read_text(encoding="utf-8").splitlines()[:4]
    assert re.fullmatch(r"# [A-Z].*", title)
    assert blank == after == ""
    assert re.fullmatch(r"[A-Z`][^.]*(\.\w[^.]*)*\.", sentence), "the second paragraph is one sentence on one line"
    assert len(sentence) <= 90, "longer ones are cut in the list of topics"


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_code_blocks_are_of_known_languages_and_none_is_left_open(page):
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    assert {block.language for block in blocks} <= LANGUAGES
    assert len(re.findall(r"^```", text, flags=re.MULTILINE)) == 2 * len(blocks)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path, forking_environment):
    prepare(tmp_path)
    for block in blocks_of(page.read_text(encoding="utf-8")):
        run(block, tmp_path, forking_environment)


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, link


def test_hooks_and_action_inputs_on_the_pages_exist():
    hooks = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}
    action = yaml.safe_load((ROOT / ".github/actions/verify/action.yml").read_text(encoding="utf-8"))
    seen = 0
    for page in PAGES:
        for block in blocks_of(page.read_text(encoding="utf-8")):
            if block.language != "yaml":
                continue
            content = yaml.safe_load(block.text)
            for repo in content.get("repos", []) if isinstance(content, dict) else []:
                assert {hook["id"] for hook in repo["hooks"]} <= hooks
                seen += 1
            for step in content if isinstance(content, list) else []:
                if "lstm-onnx" in step.get("uses", ""):
                    assert set(step["with"]) <= set(action["inputs"])
                    seen += 1
    assert seen >= 2
