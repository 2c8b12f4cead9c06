"""Comparisons and roundings: a file that has >= in place of > is wrong for the threshold itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from lstm_onnx import export, load
from lstm_onnx.parity.modules.thresholds import threshold_case
from lstm_onnx.parity.modules.verification import ModuleVerification
from lstm_onnx.parity.replay import replay

_OTHER = {"Greater": "GreaterOrEqual", "GreaterOrEqual": "Greater", "LessOrEqual": "Less", "Round": "Floor"}


class Above(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x[:, :, 0] > 0.3) & ~(x[:, :, 1] < -1.7), x


class AtMost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("limits", torch.tensor([0.1, 0.2, 17.3]))

    def forward(self, x: Tensor) -> Tensor:
        return (x <= self.limits).long()


class Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    ("module", "dtype"),
    [
        pytest.param(Above(), torch.float32, id="bools"),
        pytest.param(AtMost(), torch.float64, id="buffer"),
        pytest.param(Of(lambda x: x * (x > 0.3)), torch.float32, id="gate"),
        pytest.param(Of(lambda x: x * (x * 2 - 1 > 0.25)), torch.float32, id="behind arithmetic"),
        pytest.param(Of(lambda x: x[..., 0] + x[..., 1] > 6.5), torch.float32, id="sum of features"),
        pytest.param(Of(lambda x: x * (x * 2 + 1 >= 2)), torch.float32, id="sum that is rounded up to 2"),
        pytest.param(Of(lambda x: torch.round(2 * x) / 4), torch.float32, id="halves of a product"),
    ],
)
def test_inputs_at_thresholds(module: nn.Module, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(module.to(dtype), path, example_inputs=torch.randn(2, 5, 3, dtype=dtype), check=False)
    for wrong in (False, True):
        proto = onnx.load(path)
        for at, node in enumerate(list(proto.graph.node) if wrong else ()):
            if node.op_type == "Round":  # floor(x + 1/2)
                half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
                proto.graph.initializer.append(half)
                proto.graph.node.insert(at, helper.make_node("Add", [node.input[0], "half"], ["moved"]))
                node.input[0] = "moved"
            node.op_type = _OTHER.get(node.op_type, node.op_type)
        onnx.save(proto, path)
        verification = ModuleVerification(load(path, "cpu", threads=1), module)
        case = threshold_case(verification.subject)
        assert case is not None
        assert replay(verification.model, case).passed is not wrong


@pytest.mark.parametrize(
    ("function", "compared"),
    [
        pytest.param(lambda x: torch.floor(x * 7.3), True, id="numbers that roundings move"),
        pytest.param(lambda x: x * (x.double() > 0.3).float(), True, id="compared in float64"),
        pytest.param(lambda x: torch.softmax(x, -1).log(), False, id="nothing is compared"),
    ],
)
def test_right_files(function: Callable[[Tensor], Tensor], compared: bool, tmp_path: Path) -> None:
    module = Of(function)
    export(module, tmp_path / "m.onnx", example_inputs=torch.randn(2, 5, 3), check=False)
    verification = ModuleVerification(load(tmp_path / "m.onnx", "cpu", threads=1), module)
    case = threshold_case(verification.subject)
    assert (case is not None) is compared
    assert case is None or replay(verification.model, case).passed
