"""What each part of the package imports, seen from a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy

from lstm_onnx.spec import LSTMSpec

from .runtime.models import drawn_state, exported

SPEC = {"input_size": 4, "hidden_size": 5}
TOML = """
[lstm]
input_size = 4
hidden_size = 5

[weights]
file = "net.safetensors"
"""


def imported_by(script: str, *arguments: str) -> set[str]:
    """The packages and modules that a fresh interpreter holds after `script`."""
    tail = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script + tail, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def assert_without(modules: set[str], *unwanted: str) -> None:
    assert "lstm_onnx" in modules
    found = {name for name in modules if name.partition(".")[0] in unwanted}
    assert not found, f"imported: {', '.join(sorted(found)[:5])}"


def test_this_test_can_fail():
    modules = imported_by("import lstm_onnx, onnx")
    with pytest.raises(AssertionError, match="imported: onnx"):
        assert_without(modules, "torch", "onnx")
    with pytest.raises(AssertionError):
        assert_without(imported_by("import numpy"), "torch")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        imported_by("1 / 0")


def test_the_package_imports_nothing_heavy():
    modules = imported_by("import lstm_onnx; dir(lstm_onnx)")
    assert_without(modules, "numpy", "onnx", "onnxruntime", "torch", "click", "safetensors", "onnx_ir", "onnxscript")


def test_the_command_line_imports_nothing_heavy():
    # The process has to take care of signals before anything else, so even click comes later.
    assert_without(imported_by("from lstm_onnx.cli import main"), "click", "threading", "dataclasses")
    modules = imported_by("from lstm_onnx.cli import cli")
    assert "click" in modules
    assert_without(modules, "numpy", "onnx", "onnxruntime", "torch", "safetensors", "onnx_ir", "onnxscript")


def test_running_a_model_needs_numpy_and_onnx_runtime_alone(tmp_path: Path):
    exported(tmp_path / "m.onnx")
    script = """
import sys, lstm_onnx
model = lstm_onnx.load(sys.argv[1], "cpu")
output, (hn, cn) = model([[[1, 2, 3, 4]]])
model.stream()([[1, 2, 3, 4]])
assert output.shape == (1, 1, 5)
"""
    modules = imported_by(script, str(tmp_path / "m.onnx"))
    assert {"numpy", "onnxruntime"} <= modules
    assert_without(modules, "torch", "onnx", "onnx_ir", "onnxscript", "click", "safetensors")
    assert not {name for name in modules if name.startswith(("lstm_onnx.exporter", "lstm_onnx.parity"))}


def test_a_server_needs_neither_torch_nor_onnx():
    modules = imported_by("import lstm_onnx.serving.run, lstm_onnx.serving.grpc_server, lstm_onnx.serving.client")
    assert {"uvicorn", "grpc", "numpy"} <= modules
    # uvicorn has a command of its own, and imports click.
    assert_without(modules, "torch", "onnx", "onnx_ir", "onnxscript", "safetensors")


def test_only_what_runs_on_ray_imports_it(tmp_path: Path):
    script = """
import lstm_onnx
assert lstm_onnx.ray.map and lstm_onnx.ray.MapResult
import lstm_onnx.cli.run, lstm_onnx.cli.run_on_ray, lstm_onnx.ray.cluster, lstm_onnx.ray.worker
"""
    modules = imported_by(script)
    assert "lstm_onnx.ray.dataset" in modules
    assert_without(modules, "ray", "torch", "onnx", "uvicorn", "websockets", "grpc", "starlette", "prometheus_client")
    assert not {name for name in modules if name.startswith("lstm_onnx.serving")}
    assert "lstm_onnx.ray.replicas" in imported_by("from lstm_onnx.ray import deployment")
    assert_without(imported_by("from lstm_onnx.ray import deployment"), "ray", "uvicorn", "grpc", "torch")


def test_exporting_weights_from_a_file_needs_no_torch(tmp_path: Path):
    safetensors.numpy.save_file(drawn_state(LSTMSpec(**SPEC)), tmp_path / "net.safetensors")
    (tmp_path / "net.toml").write_text(TOML, encoding="utf-8")
    script = """
import sys
from lstm_onnx.exporter.bare_lstm import export_lstm
from lstm_onnx.exporter.sources.source import load_source
source = load_source(sys.argv[1])
export_lstm(source.spec, source.options, source.state, sys.argv[2])
"""
    modules = imported_by(script, str(tmp_path / "net.toml"), str(tmp_path / "net.onnx"))
    assert {"onnx", "safetensors"} <= modules
    assert_without(modules, "torch", "onnx_ir", "onnxscript", "onnxruntime", "click")
    exported(tmp_path / "same.onnx")
    assert (tmp_path / "net.onnx").read_bytes() == (tmp_path / "same.onnx").read_bytes()


def test_onnx_runtime_collects_nothing(tmp_path: Path) -> None:
    exported(tmp_path / "m.onnx", **SPEC)
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import sys, lstm_onnx; lstm_onnx.load(sys.argv[1]); print(__import__('os').environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    for asked, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "true"}, "true")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "m.onnx")],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env={**environment, "HOME": str(home), **asked},
        )
        assert done.stdout.strip() == expected
    assert not list(home.rglob("*.db"))
