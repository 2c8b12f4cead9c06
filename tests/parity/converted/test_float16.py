"""Files in float16 pass, wrong ones fail, and modules of other dtypes are converted."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import ModelError
from lstm_onnx.parity.converted.exact import STORED, read_stored
from tests.parity.converted.files import (
    OPTIONS,
    Files,
    changed,
    failed,
    number,
)

pytestmark = pytest.mark.sweep(9)


@pytest.mark.usefixtures("without_sweeps")
@pytest.mark.parametrize("files", ["bare", "net"])
def test_a_float16_file_has_exactly_the_rounded_weights(files: str, request: pytest.FixtureRequest) -> None:
    found: Files = request.getfixturevalue(files)
    report = found.verified(found.float16)
    assert report, str(report)
    assert report.precision == "float16"
    assert all(1e-6 < drift.relative < 2e-3 for drift in report.drift)
    assert any(case.label.startswith("rounded weights, ") for case in report.cases)
    state = found.module.state_dict()
    name, parameter = ("l0/R/float16", "weight_hh_l0") if files == "bare" else ("embedding.weight/float16", None)
    stored = read_stored(found.float16).arrays[name]
    assert stored.dtype == np.float16
    if parameter is None:
        assert np.array_equal(stored, state["embedding.weight"].numpy().astype(np.float16))
    else:
        gates = state[parameter].numpy().astype(np.float16).reshape(4, 24, 24)[[0, 3, 1, 2]]
        assert np.array_equal(stored[0], gates.reshape(96, 24))


def test_a_float16_file_gives_what_pytorch_gives_with_rounded_weights(bare: Files) -> None:
    rounded = copy.deepcopy(bare.module)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if name.startswith("weight"):  # biases stay float32
                parameter.copy_(parameter.half().float())
    report = lstm_onnx.verify(rounded, bare.float16, **OPTIONS, max_drift=1e-6)
    assert report, str(report)
    assert any(note.startswith("the weights are rounded to float16") for note in report.notes)
    report = lstm_onnx.verify(bare.module, bare.float16, **OPTIONS, max_drift=1e-6)
    assert failed(report) == {"the drift from float64"}


def test_a_wrong_float16_file_fails(bare: Files, tmp_path: Path) -> None:
    half = number("l0/W/float16", lambda value: np.nextafter(value, np.float16(9)))
    report = bare.verified(changed(bare.float16, tmp_path / "wrong.onnx", half))
    assert not report
    assert STORED in failed(report)


def test_a_float16_file_is_half_as_large_and_runs_in_float32(tmp_path: Path) -> None:
    module = nn.LSTM(64, 128)
    sizes = {
        precision: lstm_onnx.export(module, tmp_path / f"{precision}.onnx", precision=precision).num_bytes
        for precision in ("float32", "float16", "int8")
    }
    assert sizes["float16"] <= 0.55 * sizes["float32"]
    assert sizes["int8"] <= 0.3 * sizes["float32"]
    x = np.random.default_rng(0).standard_normal((5, 2, 64)).astype(np.float32)
    full, half = (
        lstm_onnx.load(tmp_path / f"{name}.onnx", provider="cpu", threads=1).run({"input": x})["output"]
        for name in ("float32", "float16")
    )
    assert half.dtype == np.float32
    assert 0 < np.abs(half - full).max() < 1e-3
    with pytest.raises(ModelError, match="has float16 weights; quantize the float32 file"):
        lstm_onnx.quantize(tmp_path / "float16.onnx", tmp_path / "q.onnx")


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float16, "int8"), (torch.bfloat16, "float16"), (torch.float64, "float32")]
)
def test_modules_of_other_dtypes(dtype: torch.dtype, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(20, 24).to(dtype)
    result = lstm_onnx.export(module, tmp_path / "m.onnx", precision=precision)
    assert result.spec is not None
    assert result.spec.dtype == "float32"
    assert next(module.parameters()).dtype == dtype
    report = lstm_onnx.verify(module, tmp_path / "m.onnx", **OPTIONS)
    assert report, str(report)


# --- the limit of the drift, golden files, assertions ----------------------------------------------------
