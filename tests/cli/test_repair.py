"""``lstm-onnx repair``, and the other commands on its files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.hostile_files import ENDING, written
from tests.repairs.loops import FEATURES, loop_file

from .conftest import Invoke


def test_a_file_is_written_and_reported(invoke: Invoke, tmp_path: Path):
    source, target = str(loop_file(tmp_path / "a.onnx", "rnn")), str(tmp_path / "b.onnx")
    code, output = invoke("repair", source, "-o", target, "--json")
    assert code == 0
    result = json.loads(output)
    assert list(result["operators"].values()) == ["RNN"]
    assert result["proof"] == {"runs": 8, "problem": ""}
    code, output = invoke("repair", source, "-o", target)
    assert "now the operator RNN" in output
    assert "compared with the source in 8 runs" in output


def test_the_other_commands_take_the_file(invoke: Invoke, tmp_path: Path):
    source, target = str(loop_file(tmp_path / "a.onnx", "gru")), str(tmp_path / "b.onnx")
    assert invoke("repair", source, "-o", target)[0] == 0
    for file in (source, target):
        assert invoke("check", file)[0] == 0
        assert invoke("inspect", file)[0] == 0
    assert "GRU" in invoke("inspect", target)[1]
    np.save(tmp_path / "x.npy", np.zeros((2, 3, FEATURES), np.float32))
    code, output = invoke("run", target, str(tmp_path / "x.npy"), "-o", str(tmp_path / "y.npz"), "--stream")
    assert code == 0, output


@pytest.mark.parametrize("output", ["-", "b.toml"])
def test_an_output_that_is_no_model_is_refused(invoke: Invoke, tmp_path: Path, output: str):
    source = loop_file(tmp_path / "a.onnx", "rnn")
    assert invoke("repair", str(source), "-o", output)[0] == 2


@pytest.mark.skipif(os.name != "posix", reason="on Windows it runs in this process")
def test_a_file_that_ends_the_process_of_onnx_runtime_is_an_error(invoke: Invoke, tmp_path: Path):
    code, output = invoke("repair", str(written(tmp_path, ENDING["RandomNormal of scale 0"]())), "-o", "out.onnx")
    assert code == 2
    assert "child process that opened it ended the process (SIG" in output
    assert not (tmp_path / "out.onnx").exists()
