"""Outputs of comparisons alone: a file that has >= in place of > is wrong for the threshold itself."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import export, load
from lstm_onnx.parity.modules.thresholds import threshold_case
from lstm_onnx.parity.modules.verification import ModuleVerification
from lstm_onnx.parity.replay import replay

_OTHER = {"Greater": "GreaterOrEqual", "LessOrEqual": "Less"}


class Above(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x[:, :, 0] > 0.3) & ~(x[:, :, 1] < -1.7), x


class AtMost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("limits", torch.tensor([0.1, 0.2, 17.3]))

    def forward(self, x: Tensor) -> Tensor:
        return (x <= self.limits).long()


@pytest.mark.parametrize(("module", "dtype"), [(Above(), torch.float32), (AtMost(), torch.float64)])
def test_inputs_at_thresholds(module: nn.Module, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(module.to(dtype), path, example_inputs=torch.randn(2, 5, 3, dtype=dtype), check=False)
    for wrong in (False, True):
        proto = onnx.load(path)
        for node in proto.graph.node if wrong else ():
            node.op_type = _OTHER.get(node.op_type, node.op_type)
        onnx.save(proto, path)
        verification = ModuleVerification(load(path, "cpu", threads=1), module)
        case = threshold_case(verification.subject)
        assert case is not None
        assert replay(verification.model, case).passed is not wrong
