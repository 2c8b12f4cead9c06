"""The doctor: this machine, and every problem that can be simulated here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_onnx import doctor
from lstm_onnx.doctor import Diagnosis, diagnose
from lstm_onnx.errors import MissingDependencyError
from lstm_onnx.runtime import providers


def capability(diagnosis: Diagnosis, name: str) -> doctor.Capability:
    return next(item for item in diagnosis.can if item.name == name)


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without ONNX Runtime."""

    def refuse() -> Any:
        raise MissingDependencyError("ONNX Runtime cannot be imported; pip install 'lstm-onnx[gpu]' brings it")

    monkeypatch.setattr(providers, "onnxruntime", refuse)


class FakeSession:
    """Returns `outcome`, or raises it."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def run(self, _names: list[str], _feeds: dict[str, np.ndarray]) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def fake(monkeypatch: pytest.MonkeyPatch, outcome: Any) -> Diagnosis:
    monkeypatch.setattr(providers, "open_session", lambda _, name: (FakeSession(outcome), name))
    return diagnose()


def test_this_machine() -> None:
    diagnosis = diagnose()
    assert diagnosis
    cpu, cuda = diagnosis.providers
    assert (cpu.name, cpu.works, cuda.name) == ("cpu", True, "cuda")
    reason = providers.cuda_unavailable()
    if reason is not None:
        assert not cuda.works
        assert reason in cuda.detail
        assert capability(diagnosis, "run on cuda").detail == cuda.detail
    assert diagnosis.cpu_count >= 1
    assert diagnosis.packages["numpy"] == np.__version__
    assert capability(diagnosis, "run on cpu").works
    assert capability(diagnosis, "export a .toml with safetensors weights").works


def test_reports() -> None:
    diagnosis = diagnose()
    tree = json.loads(json.dumps(diagnosis.to_dict()))
    assert tree["ok"] is True
    assert tree["providers"][0] == {"name": "cpu", "works": True, "detail": diagnosis.providers[0].detail}
    text = str(diagnosis)
    for word in ("numpy", "providers", "run on cuda", diagnosis.python):
        assert word in text


def test_the_known_step_is_exact_in_tf32() -> None:
    feeds, _ = doctor._known_step()
    for name, array in feeds.items():
        assert np.array_equal(array * 8, np.round(array * 8)), name
        assert np.abs(array).max() <= 1
        assert np.unique(array).size > 1


def test_no_onnxruntime(missing: None) -> None:
    diagnosis = diagnose()
    assert not diagnosis
    for status in diagnosis.providers:
        assert not status.works
        assert "pip install 'lstm-onnx[gpu]'" in status.detail
    assert not capability(diagnosis, "verify against PyTorch").works
    assert capability(diagnosis, "export a .toml with safetensors weights").works
    assert "not installed" in str(diagnosis) or diagnosis.packages["onnxruntime"]


def test_both_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(folder: Path) -> list[str]:
        return ["onnxruntime", "onnxruntime-gpu"]

    monkeypatch.setattr(providers, "installed_wheels", both)
    providers.onnxruntime.cache_clear()
    try:
        diagnosis = diagnose()
    finally:
        providers.onnxruntime.cache_clear()
    assert not diagnosis
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in diagnosis.providers[0].detail


def test_another_wheel_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "installed_wheels", lambda _: ["onnxruntime-directml"])
    assert "onnxruntime-directml" in diagnose().packages


def test_right_numbers_from_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = doctor._known_step()
    assert all(status.works for status in fake(monkeypatch, expected).providers)


@pytest.mark.parametrize("spoil", ["off", "nan in h", "nan in c", "shape", "count"])
def test_wrong_numbers_are_not_works(monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    _, (h, c) = doctor._known_step()
    wrong = {
        "off": [h, c + 2e-5],
        "nan in h": [h * np.nan, c],
        "nan in c": [h, c * np.nan],
        "shape": [h[0], c],
        "count": [h],
    }[spoil]
    diagnosis = fake(monkeypatch, wrong)
    assert not diagnosis
    assert "its result is off by" in diagnosis.providers[0].detail
    assert "pip install" in diagnosis.providers[0].detail


def test_a_session_that_fails_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = fake(monkeypatch, RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no kernel\nmore"))
    assert not diagnosis
    assert "cannot run an LSTM: no kernel;" in diagnosis.providers[0].detail


def test_onnx_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    diagnosis = diagnose()
    assert not diagnosis
    assert "onnx cannot be imported" in diagnosis.providers[0].detail


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    present = doctor._packages()
    monkeypatch.setattr(doctor, "_packages", lambda: {**present, "torch": None, "pyarrow": None, "uvicorn": None})
    diagnosis = diagnose()
    assert diagnosis
    assert "pip install 'lstm-onnx[torch]'" in capability(diagnosis, "export a torch module").detail
    assert "pip install 'lstm-onnx[torch]'" in capability(diagnosis, "verify against PyTorch").detail
    assert "pip install 'lstm-onnx[parquet]'" in capability(diagnosis, "read and write parquet").detail
    serve = capability(diagnosis, "serve over HTTP, gRPC and websockets")
    assert serve.detail == "uvicorn missing: pip install 'lstm-onnx[serve]'"
    ray = capability(diagnosis, "run on many machines with Ray")
    assert ray.detail.endswith("pyarrow and uvicorn missing: pip install 'lstm-onnx[ray]'")


def test_torch_without_onnxscript_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    present = doctor._packages()
    monkeypatch.setattr(doctor, "_packages", lambda: {**present, "torch": "2.13.0", "onnxscript": None})
    diagnosis = diagnose()
    export = capability(diagnosis, "export a torch module")
    assert (export.works, export.detail) == (False, "onnxscript missing: pip install 'lstm-onnx[torch]'")
    assert capability(diagnosis, "verify against PyTorch").works
    assert "onnxscript not installed" in " ".join(str(diagnosis).split())


def test_torch_is_not_imported() -> None:
    code = "import sys; from lstm_onnx.doctor import diagnose; diagnose(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.cuda
def test_cuda_is_proven() -> None:
    cuda = diagnose().providers[1]
    assert cuda.works, cuda.detail
