"""The JavaScript of the page on browsers, and of the README of a deployed folder, run by Node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .blocks import ROOT, blocks_of, prepare, run

PAGE = (ROOT / "lstm_onnx/docs/browsers.md").read_text(encoding="utf-8")
NODE_MODULES = ROOT / ".ci/node_modules"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not (NODE_MODULES / "onnxruntime-web").exists(), reason="onnxruntime-web is not installed; .ci/run does that"
    ),
]


def printed(folder: Path, program: str) -> str:
    (folder / "program.mjs").write_text(program, encoding="utf-8")
    done = subprocess.run(
        ["node", "--no-wasm-tier-up", "--wasm-lazy-compilation", "program.mjs"],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_programs_of_the_page_and_of_the_folder_run(tmp_path: Path, script_environment: dict[str, str]) -> None:
    prepare(tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    console, stream, _, prove = blocks_of(PAGE)
    run(console, tmp_path, script_environment)
    assert printed(tmp_path, stream.text) == "true\n"
    found = printed(tmp_path, prove.text)
    assert found.startswith("true [")
    assert "'200 steps, 1 at a time: true'" in found
    (readme,) = blocks_of((tmp_path / "web" / "README.md").read_text(encoding="utf-8"))
    shown = printed(tmp_path / "web", readme.text).splitlines()
    assert shown[0].startswith("pass [ 'input', 'h0', 'c0' ]")
    assert shown[1] == "[ 'output' ] [ 'output' ]"
