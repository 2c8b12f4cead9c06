"""``lstm-onnx inspect --code``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lstm_onnx.cli.inspect import _LANGUAGES
from lstm_onnx.inspect.code import LANGUAGES, program

from ..runtime.models import exported


def test_a_program_is_printed(run_cli, tmp_path: Path):
    exported(tmp_path / "net.onnx")
    wanted = program(tmp_path / "net.onnx", "rust")
    printed = run_cli("inspect", "net.onnx", "--code", "rust")
    assert (printed.code, printed.out) == (0, wanted)
    found = json.loads(run_cli("inspect", "net.onnx", "--code", "rust", "--json").out)
    assert found == {"schema": 1, "language": "rust", "program": wanted}
    assert run_cli("inspect", "net.onnx", "--code", "cobol").code == 2
    assert run_cli("inspect", "none.onnx", "--code", "rust").code == 2
    assert _LANGUAGES == LANGUAGES
    np.save(tmp_path / "x.npy", np.zeros((3, 2, 4), np.float32))
    printed = run_cli("inspect", "net.onnx", "--code", "python", "--data", "x.npy")
    assert (printed.code, "(3, 2, 4)" in printed.out) == (0, True)
    assert run_cli("deploy", "web", "net.onnx", "-o", "web", "--data", "x.npy").code == 0
    done = run_cli("inspect", "net.onnx", "--data", "x.npy")
    assert (done.code, "--data is for --code, but that was not given" in done.err) == (2, True)
