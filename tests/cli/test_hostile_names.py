"""Names out of files and paths, through every command: nothing in the output is acted upon."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ..hostile_names import NAMES, unsafe, write_model
from .conftest import Done

Run = Callable[..., Done]
SHORT = {kind: name for kind, name in NAMES.items() if len(name) < 100}


@pytest.mark.sweep(12)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_names_in_a_file(name: str, run_cli: Run, toml: Callable[..., Path]) -> None:
    write_model("m.onnx", name)
    np.savez("x.npz", other=np.ones((2, 1, 4), np.float32))
    run_cli("export", toml(), "-o", "net.onnx")
    run_cli("verify", "net.toml", "net.onnx", "--mutants", "none", "--golden", "g.npz")
    for arguments, code in (
        (("check", "m.onnx"), None),
        (("check", "m.onnx", "net.onnx"), None),
        (("inspect", "m.onnx"), 0),
        (("run", "m.onnx"), 0),
        (("run", "m.onnx", "--size", "nothing=3"), 2),
        (("run", "m.onnx", "x.npz"), 2),
        (("run", "m.onnx", "-o", "out.npz"), 0 if name in SHORT.values() else 2),  # of zip files
        (("run", "m.onnx", "-o", "out.jsonl"), 0),
        (("verify", "m.onnx", "--golden", "g.npz"), 2),
        (("verify", "net.toml", "m.onnx", "--mutants", "none", "--junit", "a.xml", "--html", "a.html"), None),
    ):
        done = run_cli(*arguments, "--provider", "cpu") if arguments[0] != "inspect" else run_cli(*arguments)
        assert done.code == code or (code is None and done.code in (0, 1, 2)), (arguments, done.err)
        assert unsafe(done.out + done.err) == [], arguments
        assert len(done.out + done.err) < 30_000, arguments
        if done.code == 2:
            assert len(done.err.splitlines()) == 1


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_json_has_the_whole_name(name: str, run_cli: Run) -> None:
    write_model("m.onnx", name)
    told = run_cli("inspect", "m.onnx", "--json")
    assert json.loads(told.out)["producer"] == name.strip()
    assert json.loads(told.out)["lstms"][0]["name"] == f"{name}node"
    (output,) = json.loads(run_cli("run", "m.onnx", "--json").out)
    assert output == f"{name}y"
    assert unsafe(told.out + run_cli("check", "m.onnx", "--json").out) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such file names")
@pytest.mark.sweep(10)
@pytest.mark.parametrize("name", [name.replace("/", "|") for name in SHORT.values()], ids=SHORT.keys())
def test_names_of_files(name: str, run_cli: Run, toml: Callable[..., Path]) -> None:
    toml()
    for arguments, code in (
        (("export", "net.toml", "-o", f"{name}.onnx"), 0),
        (("check", f"{name}.onnx"), 0),
        (("check", f"{name}.onnx", f"{name}none.onnx"), 2),
        (("inspect", f"{name}.onnx"), 0),
        (("run", f"{name}.onnx", "-o", f"{name}.npz"), 0),
        (("run", f"{name}.onnx", f"{name}.npz"), 2),
        (("verify", "net.toml", f"{name}.onnx", "--mutants", "none", "--junit", f"{name}.xml"), 0),
        (("export", f"{name}.toml"), 2),
        (("run", f"{name}none.onnx", "--debug"), 2),
    ):
        done = run_cli(*(arguments if not name.startswith("-") else ("--", *arguments)))
        assert done.code == code, (arguments, done.err)
        assert unsafe(done.out + done.err) == [], arguments


def test_a_name_that_is_no_text(run_cli: Run, toml: Callable[..., Path]) -> None:
    toml()
    name = os.fsdecode(b"\xff\xfe.onnx")
    run_cli("export", "net.toml", "-o", "m.onnx")
    os.link("m.onnx", name)
    for arguments in (("check", name), ("export", "net.toml", "-o", name)):
        done = run_cli(*arguments)
        assert (done.code, unsafe(done.out + done.err)) == (2, [])
        assert r"\udcff\udcfe.onnx: its name is not UTF-8" in done.err
    done = run_cli("inspect", name)
    assert (done.code, unsafe(done.out + done.err)) == (0, [])


def test_on_github_only_our_own_annotation_is_one(
    run_cli: Run, toml: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    write_model("a.onnx", "\n::error::hacked")
    os.replace("a.onnx", "\n::error::hacked\n##[error]b.onnx")
    name = "\n::error::hacked\n##[error]b.onnx"
    done = run_cli("verify", "net.toml", name, "--mutants", "none")
    assert done.code in (1, 2)
    commands = [line for line in (done.out + done.err).splitlines() if line.lstrip().startswith("::")]
    assert all(line.startswith("::error ") and "title=" in line for line in commands)
    assert len(commands) == (done.code == 1)
    assert [line for line in unsafe(done.out + done.err) if line[:200] not in {each[:200] for each in commands}] == []
    if done.code == 1:
        assert unsafe((tmp_path / "summary.md").read_text(encoding="utf-8")) == []
