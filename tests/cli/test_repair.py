"""``lstm-onnx repair``, and the other commands on its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lstm_onnx.cli import main as program
from lstm_onnx.cli.group import cli
from tests.repairs.loops import FEATURES, loop_file

assert program


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, list(arguments))
    return result.exit_code, result.output


def test_a_file_is_written_and_reported(tmp_path: Path):
    source, target = str(loop_file(tmp_path / "a.onnx", "rnn")), str(tmp_path / "b.onnx")
    code, output = invoke("repair", source, "-o", target, "--json")
    assert code == 0
    result = json.loads(output)
    assert list(result["operators"].values()) == ["RNN"]
    assert result["proof"] == {"runs": 4, "problem": ""}
    code, output = invoke("repair", source, "-o", target)
    assert "now the operator RNN" in output
    assert "compared with the source in 4 runs" in output


def test_the_other_commands_take_the_file(tmp_path: Path):
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
def test_an_output_that_is_no_model_is_refused(tmp_path: Path, output: str):
    source = loop_file(tmp_path / "a.onnx", "rnn")
    assert invoke("repair", str(source), "-o", output)[0] == 2
