"""`verify` and golden files on another engine: the same cases, judged alike, and the report says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ConfigError
from lstm_onnx.cli import main
from lstm_onnx.parity.golden import verify_golden
from lstm_onnx.parity.runtimes import RUNTIMES
from lstm_onnx.quantization import quantize

pytestmark = pytest.mark.sweep(6)

Pretend = Callable[..., None]


@pytest.fixture(scope="module")
def module() -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(3, 4)


@pytest.fixture(scope="module")
def file(module: nn.LSTM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export, with a golden file beside it."""
    path = tmp_path_factory.mktemp("verify") / "m.onnx"
    lstm_onnx.export(module, path)
    assert lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none", golden=path.with_suffix(".npz"))
    return path


def test_a_right_engine_is_in_parity_and_named(module: nn.LSTM, file: Path, pretend: Pretend):
    pretend("OnnxRuntime")
    report = lstm_onnx.verify(module, file, runtime="tract")
    assert report, str(report)
    assert report.runtime == "OnnxRuntime 1.2.3"
    assert report.to_dict()["runtime"] == "OnnxRuntime 1.2.3"
    assert report.versions["OnnxRuntime"] == "1.2.3"
    assert "on OnnxRuntime 1.2.3 (cpu)" in str(report)
    assert {mutant.outcome for mutant in report.mutants} <= {"rejected", "equivalent"}
    plain = lstm_onnx.verify(module, file, provider="cpu", threads=1, mutants="none")
    assert plain.to_dict()["runtime"] == "onnxruntime"
    assert [case.label for case in plain.cases] == [case.label for case in report.cases]


def test_mutants_do_not_depend_on_the_engine(module: nn.LSTM, file: Path, pretend: Pretend):
    # this engine opens any mutant as if it were the right file
    pretend("Blind")
    report = lstm_onnx.verify(module, file, runtime="tract")
    assert report, str(report)


def test_a_wrong_engine_fails(module: nn.LSTM, file: Path, pretend: Pretend):
    pretend("Wrong")
    report = lstm_onnx.verify(module, file, runtime="tract", mutants="none")
    assert not report
    passed = [case.label for case in report.judged if case.passed]
    assert all("huge states" in label for label in passed)  # which may be off by more


def test_golden_files_are_compared_on_it(file: Path, pretend: Pretend):
    golden = file.with_suffix(".npz")
    pretend("OnnxRuntime")
    assert verify_golden(file, golden, runtime="tract")
    pretend("Wrong")
    assert not verify_golden(file, golden, runtime="tract")
    pretend("Fixed", fixes_sizes=True)
    report = verify_golden(file, golden, runtime="tract")
    assert report
    assert any("one size of each axis" in note for note in report.notes)


def test_the_command_takes_several(file: Path, pretend: Pretend, capfd: pytest.CaptureFixture[str]):
    pretend("Wrong")
    arguments = ["verify", str(file), "--golden", str(file.with_suffix(".npz")), "--provider", "cpu", "--json"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--runtime", "onnxruntime", "--runtime", "tract"])
    assert left.value.code == 1
    reports = json.loads(capfd.readouterr().out)["reports"]
    assert [(one["runtime"], one["passed"]) for one in reports] == [("onnxruntime", True), ("Wrong 1.2.3", False)]


def test_what_cannot_be_compared_there_is_refused(module: nn.LSTM, file: Path, pretend: Pretend, tmp_path: Path):
    with pytest.raises(ConfigError, match=f"runtime = 'tensorflow' is not known; it must be one of {RUNTIMES[0]}, "):
        lstm_onnx.verify(module, file, runtime="tensorflow")
    with pytest.raises(ConfigError, match='tract runs on the CPU here; use provider "cpu" or "auto", not \'cuda\''):
        lstm_onnx.verify(module, file, runtime="tract", provider="cuda")
    with lstm_onnx.load(file, "cpu") as model:
        with pytest.raises(ConfigError, match="is open in ONNX Runtime; pass its path"):
            lstm_onnx.verify(module, model, runtime="tract")
        with pytest.raises(ConfigError, match="is open in ONNX Runtime; pass its path"):
            verify_golden(model, file.with_suffix(".npz"), runtime="tract")
    pretend("OnnxRuntime")
    quantize(file, tmp_path / "q.onnx")
    with pytest.raises(ConfigError, match=r"has int8 layers, .* verify the float32 file there"):
        lstm_onnx.verify(module, tmp_path / "q.onnx", runtime="tract")
    with pytest.raises(ConfigError, match=r"is compared with .*m.onnx in ONNX Runtime; leave runtime out"):
        lstm_onnx.verify(file, tmp_path / "q.onnx", runtime="tract")
    with pytest.raises(SystemExit) as left:
        main(["verify", str(file), str(tmp_path / "q.onnx"), "--runtime", "tract"])
    assert left.value.code == 2
