"""Modules, and the golden files of their exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import Model, ParityReport
from lstm_onnx.parity.golden import verify_golden
from lstm_onnx.parity.golden_file import Golden, write
from lstm_onnx.parity.verification import make_report, verification_of


def small_lstm(
    scale: float = 1.0, hidden_size: int = 6, dtype: torch.dtype = torch.float32, **arguments: object
) -> nn.LSTM:
    torch.manual_seed(3)
    module = nn.LSTM(4, hidden_size, **arguments).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    return module


def stored_golden(module: nn.Module, path: Path, out: Path, **arguments: Any) -> tuple[ParityReport, Golden]:
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    verification = verification_of(model, module, **arguments)
    report = make_report(verification, verification.results(), mutants="none")
    kept = Golden.of(report, verification)
    write(out, kept)
    return report, kept


def replayed_golden(path: Path | Model, out: Path) -> ParityReport:
    return verify_golden(path, out, provider="cpu", threads=1)


class Steps(nn.Module):
    """float and integer inputs, an integer output, and a state in an attribute that streams."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 3)
        self.lstm = nn.LSTM(5, 4)
        self.hidden = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))

    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        y, self.hidden = self.lstm(torch.cat([x, self.embedding(tokens)], dim=-1), self.hidden)
        return y, y.argmax(-1)


def exported_steps(path: Path) -> Steps:
    torch.manual_seed(0)
    module = Steps()
    shapes = {name: {0: "time", 1: "batch"} for name in ("x", "tokens")}
    example = (torch.randn(3, 2, 2), torch.arange(6).reshape(3, 2))
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes)
    return module


def with_another_weight(path: Path, out: Path) -> None:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "l0/R":
            wrong = numpy_helper.to_array(tensor).copy()
            wrong[0, 0, 0] += 0.01
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    onnx.save(model, out)
