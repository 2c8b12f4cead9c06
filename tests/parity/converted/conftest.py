"""A bare LSTM and a module, each exported once in int8 and float16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lstm_onnx
from tests.parity.converted.files import (
    Files,
    Net,
)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("bare")
    torch.manual_seed(0)
    module = nn.LSTM(20, 24, num_layers=2)
    for precision in ("int8", "float16"):
        lstm_onnx.export(module, folder / f"{precision}.onnx", precision=precision)
    return Files(module, folder / "int8.onnx", folder / "float16.onnx")


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("net")
    torch.manual_seed(0)
    module = Net().eval()
    for precision in ("int8", "float16"):
        lstm_onnx.export(
            module,
            folder / f"{precision}.onnx",
            example_inputs=torch.randint(0, 64, (2, 5)),
            dynamic_shapes={"tokens": {0: "batch", 1: "time"}},
            states="explicit",
            precision=precision,
            check=False,
        )
    return Files(module, folder / "int8.onnx", folder / "float16.onnx")
