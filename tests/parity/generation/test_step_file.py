"""`verify` of generating files with smaller weights: by the step's own file, and the loop beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lstm_onnx
from lstm_onnx import ConfigError, ModelError
from lstm_onnx.parity.report import ParityReport
from tests.generation import steps

pytestmark = pytest.mark.sweep(6)

KIND, PRECISION = "language", "int8"


def export(path: Path, module: torch.nn.Module, **changes: Any) -> None:
    _, example, shapes, generate = steps.KINDS[KIND]
    settings = {"precision": PRECISION, "generate": {**generate, "stop_token": 3}, **changes}
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "m.onnx"
    export(path, steps.module(KIND))
    return path


@pytest.fixture(scope="module")
def report(written: Path) -> ParityReport:
    return lstm_onnx.verify(steps.module(KIND), written, threads=1)


def test_a_right_file_is_in_parity_by_its_step_and_its_loop(report: ParityReport) -> None:
    assert report, str(report)
    assert report.precision == PRECISION
    assert report.drift
    labels = [case.label for case in report.cases]
    assert "the step: the stored numbers" in labels
    assert any(label.startswith("batch 1, prompt 1") for label in labels)
    assert all("generated" in {one.output for one in case.tensors} for case in report.cases if "prompt" in case.label)


def test_wrong_loops_and_wrong_layers_are_rejected(report: ParityReport) -> None:
    outcomes = {mutant.name: mutant.outcome for mutant in report.mutants}
    assert set(outcomes.values()) == {"rejected"}
    assert outcomes.keys() >= {
        "a state of the step unchanged",
        "the prompt fed to every step",
        "the end of a sequence ignored",
        "states changed after the end",
    }


def test_a_golden_file_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="store one of the step's own file"):
        lstm_onnx.verify(steps.module(KIND), written, mutants="none", golden=tmp_path / "g.npz")
    assert not list(tmp_path.iterdir())


def test_the_loop_of_other_weights_fails(written: Path) -> None:
    """Even of weights that hardly differ."""
    module = steps.module(KIND)
    head = module.head.weight
    before = head.detach().clone()
    try:
        with torch.no_grad():
            head.mul_(1.01)
        report = lstm_onnx.verify(module, written, mutants="none")
    finally:
        with torch.no_grad():
            head.copy_(before)
    assert not report
    assert [case.label for case in report.cases if not case.passed]
    assert not any(case.label.startswith("the step") for case in report.cases if not case.passed)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["MatMulInteger", None])
@pytest.mark.parametrize("kind", ["language", "sampled", "forecast"])
def test_other_kinds_kernels_and_float16(kind: str, kernel: str | None, tmp_path: Path) -> None:
    _, example, shapes, generate = steps.KINDS[kind]
    how: dict[str, Any] = {"precision": "float16"} if kernel is None else {"precision": "int8", "kernel": kernel}
    path = tmp_path / "m.onnx"
    lstm_onnx.export(steps.module(kind), path, example_inputs=example, dynamic_shapes=shapes, generate=generate, **how)
    report = lstm_onnx.verify(steps.module(kind), path, mutants="all")
    assert report, str(report)


@pytest.mark.slow
def test_a_kernel_that_rounds_otherwise_in_a_loop_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "m.onnx", steps.module(KIND), kernel="DynamicQuantizeLSTM")
    with pytest.raises(ConfigError, match="repeats a step by the kernel DynamicQuantizeLSTM"):
        lstm_onnx.verify(steps.module(KIND), tmp_path / "m.onnx")


def test_a_step_that_lstm_onnx_did_not_export(written: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(written)
    kept = [item for item in model.metadata_props if item.key != "lstm_onnx.export"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="did not export"):
        lstm_onnx.verify(steps.module(KIND), tmp_path / "m.onnx")
