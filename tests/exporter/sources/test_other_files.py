"""SOURCE where it is a file, and none of those that SOURCE can be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lstm_onnx import ConfigError, LSTMOnnxError, WeightsError
from lstm_onnx.exporter.sources.source import load_source

WRONG = "is not a model's .toml, package.module:callable or file.py:callable"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.onnx", "is an ONNX file already; SOURCE is the PyTorch side"),
        ("net.py", "name the callable in it that returns the module as well, .*net.py:make"),
        ("net.pt2", "is an ExportedProgram, which has no module to trace"),
        ("net.keras", "is TensorFlow's; convert it with tf2onnx, and its .onnx file with lstm-onnx repair"),
        ("net.txt", WRONG),
    ],
)
def test_files_of_other_kinds(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(ConfigError, match=words):
        load_source(str(tmp_path / name))


def test_weights_say_where_their_lstms_are(tmp_path: Path) -> None:
    state = {f"encoder.lstm.{name}": value for name, value in nn.LSTM(4, 3).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.ckpt")
    with pytest.raises(ConfigError) as caught:
        load_source(str(tmp_path / "net.ckpt"))
    message = str(caught.value)
    assert 'holds weights and no module (its LSTMs are under prefix = "encoder.lstm.")' in message
    assert '[weights] file = "net.ckpt"' in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    torch.save(nn.LSTM(4, 3), tmp_path / "module.pt")
    for name, words in (("script.pt", "is a TorchScript archive"), ("module.pt", "holds more than tensors")):
        with pytest.raises(WeightsError, match=words):
            load_source(str(tmp_path / name))


@pytest.mark.parametrize("source", ["gone.pt", "gone", ".", "", "a\0b"])
def test_what_is_not_there(source: str) -> None:
    with pytest.raises(LSTMOnnxError, match=WRONG):
        load_source(source)
