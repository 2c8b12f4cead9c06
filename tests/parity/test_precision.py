"""Sources in each precision: one option, and `verify` of what it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx import WeightsError
from lstm_onnx.exporter.sources.source import LSTMSource, load_source
from lstm_onnx.parity.verification import verify_all

pytestmark = pytest.mark.sweep(12)

_NET = "[lstm]\ninput_size = 20\nhidden_size = 24\nproj_size = 20\n[weights]\nseed = 2\n"
_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 20, batch_first=True)
        self.head = nn.Linear(20, 60)

    def forward(self, x, tokens):
        return self.head(self.lstm(x)[0]) + tokens.unsqueeze(-1)

def make():
    torch.manual_seed(0)
    return Net(), (torch.randn(2, 5, 4), torch.ones(2, 5, dtype=torch.int64))
"""
_DESCRIBED = """
[module]
factory = "precise_net.py:Net"
[inputs.x]
shape = ["batch", "time", 4]
dtype = "float32"
[inputs.tokens]
shape = ["batch", "time"]
dtype = "int64"
"""


@pytest.mark.parametrize("precision", ["float32", "float64", "float16", "int8"])
def test_an_lstm_in_every_precision_is_in_parity(precision: str, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(_NET)
    source = load_source(str(tmp_path / "net.toml"))
    chosen = source.with_options(precision=precision)
    assert isinstance(chosen, LSTMSource)
    assert isinstance(source, LSTMSource)
    computed = chosen.computed()
    assert computed.spec.dtype == ("float64" if precision == "float64" else "float32")
    assert source.spec.dtype == "float32"
    assert {array.dtype for array in source.state.values()} == {np.dtype(np.float32)}
    result = chosen.export(tmp_path / "m.onnx")
    assert result.options.precision == precision
    report = lstm_onnx.verify(chosen.module(), tmp_path / "m.onnx", provider="cpu", threads=1)
    assert report, str(report)
    assert report.precision == ("" if precision.startswith("float3") or precision == "float64" else precision)


@pytest.mark.parametrize("factor", [1e7, 1e-7])  # the largest is about 0.5
def test_weights_out_of_float16s_range_stay_float32(factor: float, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(_NET)
    source = load_source(str(tmp_path / "net.toml"))
    assert isinstance(source, LSTMSource)
    source.state["weight_ih_l0"] *= np.float32(factor)
    result = source.with_options(precision="float16").export(tmp_path / "m.onnx")
    assert result.notes == ("l0/W: stays float32, since float16 holds numbers up to 65504 and from 6e-5 on",)
    assert lstm_onnx.load(tmp_path / "m.onnx", provider="cpu").inputs["input"].dtype == np.float32


def test_a_weight_too_large_for_the_dtype_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(_NET.replace("[weights]", 'dtype = "float64"\n[weights]'))
    source = load_source(str(tmp_path / "net.toml"))
    assert isinstance(source, LSTMSource)
    source.state["weight_ih_l0"][0, 0] = 1e300
    with pytest.raises(WeightsError, match="too large for float32"):
        source.with_options(precision="float16").export(tmp_path / "m.onnx")


@pytest.mark.parametrize("named", ["precise_net.toml", "precise_net:make"])
def test_a_module_is_copied_and_its_integers_are_left(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precise_net.py").write_text(_MODULE)
    (tmp_path / "precise_net.toml").write_text(_DESCRIBED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = load_source(named)
    computed = source.with_options(precision="float64").computed()
    assert not isinstance(computed, LSTMSource)
    assert {parameter.dtype for parameter in computed.module().parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in source.module().parameters()} == {torch.float32}
    if named.endswith(".toml"):
        assert [spec.dtype for spec in computed.inputs] == ["float64", "int64"]
    else:
        assert computed.example is not None
        assert [tensor.dtype for tensor in computed.example.tensors.values()] == [torch.float64, torch.int64]
    (verified,) = verify_all(source, precisions=("int8",), providers=("cpu",), threads=1, mutants="none")
    assert verified.report, str(verified.report)
    assert verified.report.file == "a fresh export in int8"
    assert {drift.output for drift in verified.report.drift} == {"output"}
