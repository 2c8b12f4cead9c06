"""The workflows: jobs, matrix, permissions and pinned actions; each runs a script that exists."""

from __future__ import annotations

import os
import re

import pytest
import yaml

from tests.docs.blocks import ROOT

FOLDER = ROOT / ".github/workflows"
NAMES = ("ci", "release", "weekly")


def workflow(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))


def steps(name: str) -> list[dict]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def test_there_are_these_workflows():
    assert sorted(path.stem for path in FOLDER.glob("*.yml")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_permissions_are_the_least(name):
    jobs = {job: content.get("permissions") for job, content in workflow(name)["jobs"].items()}
    if name == "release":
        assert workflow(name)["permissions"] == {}
        assert jobs == {
            "build": {"contents": "read"},
            "publish": {"id-token": "write", "attestations": "write"},
        }
    else:
        assert workflow(name)["permissions"] == {"contents": "read"}
        assert set(jobs.values()) == {None}


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_pinned_by_commit_and_say_their_version(name):
    text = (FOLDER / f"{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.*)$", text, flags=re.MULTILINE)
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in used)


@pytest.mark.parametrize("name", NAMES)
def test_checkouts_keep_no_credentials_and_jobs_end(name):
    assert all(job["timeout-minutes"] <= 120 for job in workflow(name)["jobs"].values())
    checkouts = [step for step in steps(name) if step.get("uses", "").startswith("actions/checkout")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_thin_shells_around_scripts_that_exist(name):
    ran = [step["run"] for step in steps(name) if "run" in step]
    scripts = [command.split()[0] for command in ran if command != "python -m pip install build"]
    assert scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), script
    assert all("${{" not in command for command in ran), "what is written into a script is run; use env"


def test_ci_runs_on_three_systems_and_four_pythons_with_oldest_and_newest_dependencies():
    assert workflow("ci")["jobs"].keys() == {"locked", "tests", "package"}
    matrix = workflow("ci")["jobs"]["tests"]["strategy"]["matrix"]
    systems = ["ubuntu-latest", "windows-latest", "macos-latest"]
    assert matrix["os"] == systems
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert matrix["dependencies"] == ["newest"]
    assert [job["os"] for job in matrix["include"] if job["dependencies"] == "oldest"] == systems


def test_the_dependencies_of_the_matrix_are_what_the_script_knows():
    script = (ROOT / ".github/scripts/test").read_text(encoding="utf-8")
    known = " | ".join(re.findall(r"^  (\w[\w| ]*)\)", script, flags=re.MULTILINE)).split(" | ")
    assert set(known) == {"oldest", "newest", "preview", "slow", "families"}


def test_a_release_is_built_from_a_tag_and_published_without_a_password():
    release = workflow("release")
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert release["jobs"]["publish"]["needs"] == "build"
    assert release["jobs"]["publish"]["environment"] == "release"
    assert "secrets." not in (FOLDER / "release.yml").read_text(encoding="utf-8")
    used = [step["uses"].partition("@")[0] for step in release["jobs"]["publish"]["steps"]]
    assert used == ["actions/download-artifact", "actions/attest-build-provenance", "pypa/gh-action-pypi-publish"]


def test_the_weekly_run_is_weekly_and_takes_previews():
    assert [entry["cron"].split()[2:] for entry in workflow("weekly")[True]["schedule"]] == [["*", "*", "1"]]
    assert any(step.get("run") == ".github/scripts/test preview" for step in steps("weekly"))


def test_the_weekly_run_has_whole_families():
    assert workflow("weekly")["jobs"]["families"]["steps"][-1] == {"run": ".github/scripts/test families"}


def test_the_weekly_run_has_the_public_models_and_the_drawn_modules():
    sweeps = workflow("weekly")["jobs"]["sweeps"]
    assert sweeps["strategy"]["matrix"]["tests"] == ["tests/public_models", "tests/parity/test_drawn_modules.py"]
    assert all((ROOT / path).exists() for path in sweeps["strategy"]["matrix"]["tests"])
    assert any(step.get("run") == '.github/scripts/test slow "$TESTS"' for step in sweeps["steps"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_have_what_github_requires(name):
    form = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    ids = [element["id"] for element in form["body"] if element["type"] != "markdown"]
    assert ids
    assert len(ids) == len(set(ids))
    assert any(element.get("validations", {}).get("required") for element in form["body"])


def test_our_own_pre_commit_hooks_are_those_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert [hook["id"] for hook in hooks] == ["ruff", "ruff-format", "mypy", "lint-imports"]
    for hook in hooks:
        assert hook["entry"].removesuffix(" --force-exclude") in ci
