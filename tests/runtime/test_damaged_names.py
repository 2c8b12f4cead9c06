"""Files in which the name of a node is no text: protobuf and ONNX Runtime take any bytes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from torch import nn

import lstm_onnx


def test_the_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    lstm_onnx.export(nn.LSTM(2, 3), path)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "LSTM").name = "Q" * 9
    path.write_bytes(model.SerializeToString().replace(b"Q" * 9, b"\xff" * 9))
    with pytest.raises(lstm_onnx.ModelError, match="name of a node is not UTF-8"):
        lstm_onnx.load(path, provider="cpu", threads=1)
