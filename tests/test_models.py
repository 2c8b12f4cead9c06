"""Every configured model in models/ is in parity, and the trained one is what its page says."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.exporter.lstm import export_lstm
from lstm_onnx.exporter.source import load_source

MODELS = Path(__file__).parent.parent / "models"


@pytest.mark.parametrize("config", sorted(MODELS.glob("*.toml")), ids=lambda path: path.stem)
def test_model_is_in_parity_and_passes_check(config, tmp_path):
    source = load_source(str(config))
    path = tmp_path / "m.onnx"
    export_lstm(source.spec, source.options, source.state, path)
    report = lstm_onnx.verify(source.module(), path, provider="cpu", threads=1)
    assert report, str(report)
    checked = check(path, provider="cpu")
    assert checked, str(checked)


def test_there_is_a_model_of_each_kind():
    specs = [load_source(str(path)) for path in MODELS.glob("*.toml")]
    assert any(source.spec.num_layers > 1 for source in specs)
    assert any(source.spec.bidirectional for source in specs)
    assert any(source.spec.batch_first for source in specs)
    assert any(not source.spec.bias for source in specs)
    assert {source.options.projection for source in specs if source.spec.proj_size} == {"scan", "fold"}
    assert any(source.options.lengths for source in specs)
    assert {source.spec.dtype for source in specs} == {"float32", "float16", "float64"}


def series():
    table = np.loadtxt(MODELS / "sunspots.csv", delimiter=",", skiprows=1)
    return table[:, 0].astype(int), table[:, 1]


def test_sunspots_held_out_errors_are_those_on_its_page(tmp_path):
    years, values = series()
    source = load_source(str(MODELS / "sunspots.toml"))
    path = tmp_path / "s.onnx"
    export_lstm(source.spec, source.options, source.state, path)
    output, _ = lstm_onnx.load(path, provider="cpu")(values.astype(np.float32)[:, np.newaxis])
    page = (MODELS / "sunspots.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|\s*(\d+)\s*\|\s*\**([\d.]+)\**\s*\|\s*\**([\d.]+)\**\s*\|", page, flags=re.MULTILINE)
    assert len(rows) == 11
    held_out = np.arange(len(years))[years >= 1961]
    for horizon, own, persistence in rows:
        ahead = int(horizon)
        error = output[held_out - ahead, ahead - 1] - values[held_out]
        assert np.sqrt(np.mean(error**2)) == pytest.approx(float(own), abs=0.06)
        naive = values[held_out - ahead] - values[held_out]
        assert np.sqrt(np.mean(naive**2)) == pytest.approx(float(persistence), abs=0.06)


def test_sunspots_training_script_runs(tmp_path):
    out = tmp_path / "short.safetensors"
    subprocess.run(
        [sys.executable, MODELS / "sunspots_train.py", "--epochs", "2", "--out", out],
        check=True,
        capture_output=True,
        timeout=120,
    )
    from safetensors.numpy import load_file

    assert {name: array.shape for name, array in load_file(out).items()} == load_source(
        str(MODELS / "sunspots.toml")
    ).spec.parameter_shapes()
