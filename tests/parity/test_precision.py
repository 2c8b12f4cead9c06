"""A source in another precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lstm_onnx
from lstm_onnx import WeightsError
from lstm_onnx.exporter.sources.source import LSTMSource, load_source
from lstm_onnx.parity.verification import in_precision

_NET = "[lstm]\ninput_size = 4\nhidden_size = 3\nproj_size = 2\n[weights]\nseed = 2\n"
_MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

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


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_lstm_in_every_precision_is_in_parity(dtype: str, tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(_NET)
    source = load_source(str(tmp_path / "net.toml"))
    cast = in_precision(source, dtype)
    assert isinstance(cast, LSTMSource)
    assert isinstance(source, LSTMSource)
    assert cast.spec.dtype == dtype
    assert source.spec.dtype == "float32"
    assert {array.dtype for array in source.state.values()} == {np.dtype(np.float32)}
    cast.export(tmp_path / "m.onnx")
    report = lstm_onnx.verify(cast.module(), tmp_path / "m.onnx", provider="cpu", threads=1)
    assert report, str(report)


def test_a_weight_too_large_for_float16_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_text(_NET)
    source = load_source(str(tmp_path / "net.toml"))
    assert isinstance(source, LSTMSource)
    source.state["bias_ih_l0"][0] = 1e6
    with pytest.raises(WeightsError, match="too large for float16"):
        in_precision(source, "float16")


@pytest.mark.parametrize("named", ["precise_net.toml", "precise_net:make"])
def test_a_module_is_copied_and_its_integers_are_left(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precise_net.py").write_text(_MODULE)
    (tmp_path / "precise_net.toml").write_text(_DESCRIBED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = load_source(named)
    cast = in_precision(source, "float16")
    assert not isinstance(cast, LSTMSource)
    assert {parameter.dtype for parameter in cast.module().parameters()} == {torch.float16}
    assert {parameter.dtype for parameter in source.module().parameters()} == {torch.float32}
    if named.endswith(".toml"):
        assert [spec.dtype for spec in cast.inputs] == ["float16", "int64"]
    else:
        assert cast.example is not None
        assert [tensor.dtype for tensor in cast.example.tensors.values()] == [torch.float16, torch.int64]
    cast.export(tmp_path / "m.onnx")
    report = lstm_onnx.verify(cast.module(), tmp_path / "m.onnx", provider="cpu", threads=1, mutants="none")
    assert report, str(report)
