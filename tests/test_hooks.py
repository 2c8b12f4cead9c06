"""The pre-commit hooks: their definition, and their entries run on file names as pre-commit would."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .parity_files import parity_files

ROOT = Path(__file__).parent.parent
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))}


@pytest.fixture
def run(tmp_path: Path, forking_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a hook with `args` of its configuration on changed files."""
    shutil.copytree(parity_files(), tmp_path, dirs_exist_ok=True)

    def run(name: str, *files: str, args: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        hook = HOOKS[name]
        chosen = [file for file in files if re.search(hook["files"], file)]
        assert chosen, "pre-commit would skip it"
        command = [*shlex.split(hook["entry"]), *args, *(chosen if hook.get("pass_filenames", True) else ())]
        return subprocess.run(
            command, cwd=tmp_path, env=forking_environment, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def test_the_definitions_are_whole():
    assert set(HOOKS) == {"lstm-onnx-check", "lstm-onnx-golden", "lstm-onnx-verify"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for hook in HOOKS.values():
        assert {"id", "name", "description", "entry", "language", "files", "additional_dependencies"} <= set(hook)
        assert hook["language"] == "python"
        assert hook["entry"].split()[0] in project["scripts"]
        (extras,) = (re.fullmatch(r"\.\[(.+)\]", item)[1] for item in hook["additional_dependencies"])
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
        re.compile(hook["files"])


def test_only_parity_with_pytorch_installs_torch():
    installs = {name: hook["additional_dependencies"] for name, hook in HOOKS.items()}
    assert {name for name, extras in installs.items() if "torch" in str(extras)} == {"lstm-onnx-verify"}


def test_the_warnings_of_check_are_visible():
    # pre-commit shows the output of a hook that passes only if it is verbose.
    assert HOOKS["lstm-onnx-check"]["verbose"] is True


def test_check_takes_every_changed_file_and_fails_for_one(run: Callable, tmp_path: Path):
    (tmp_path / "torn.onnx").write_bytes((tmp_path / "net.onnx").read_bytes()[:100])
    assert run("lstm-onnx-check", "net.onnx", "wrong.onnx", "net.toml").returncode == 0
    done = run("lstm-onnx-check", "torn.onnx", "net.onnx")
    assert done.returncode != 0
    assert "torn.onnx" in done.stdout + done.stderr
    assert "net.onnx" in done.stdout


def test_verify_is_what_its_arguments_say(run: Callable):
    right = run("lstm-onnx-verify", "net.onnx", args=("net.toml", "net.onnx", "--mutants", "none"))
    assert right.returncode == 0, right.stderr
    assert run("lstm-onnx-verify", "net.toml").returncode == 2


def test_a_golden_file_is_compared_without_torch(run: Callable, tmp_path: Path, forking_environment: dict[str, str]):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not installed')")
    forking_environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{forking_environment.get('PYTHONPATH', '')}"
    assert run("lstm-onnx-golden", "net.npz", args=("net.onnx", "--golden", "net.npz")).returncode == 0
    wrong = run("lstm-onnx-golden", "net.npz", args=("wrong.onnx", "--golden", "net.npz"))
    assert wrong.returncode == 1
    assert "NOT in parity" in wrong.stdout
    assert run("lstm-onnx-verify", "net.toml", args=("net.toml", "net.onnx")).returncode == 2  # which has no torch
