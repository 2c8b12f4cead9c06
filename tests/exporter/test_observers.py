"""Modules that torch.ao.quantization prepared: what observes is left out, what rounds must be off."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.quantization.observer import NoopObserver

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X, right, signal

pytestmark = [
    pytest.mark.sweep(18),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]


class _Net(nn.Module):
    """A module as it is written for PyTorch's quantization."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant = quantization.QuantStub()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.out = nn.Linear(4, 2)
        self.dequant = quantization.DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        return self.dequant(self.out(self.lstm(self.quant(x))[0]))


def _trained() -> Any:
    """A module after a step of quantization-aware training."""
    net: Any = _Net().train()
    net.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    net = quantization.prepare_qat(net)
    net(signal(2, 4)[0]).sum().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    return net.eval()


def test_the_weights_of_quantization_aware_training(tmp_path: Path) -> None:
    net = _trained()
    with pytest.raises(
        ExportError, match=r"^quant\.activation_post_process \(FusedMoving.* switch it off, module\.apply"
    ):
        lstm_onnx.export(net, tmp_path / "m.onnx", example_inputs=signal(2, 4), dynamic_shapes=X)
    net.apply(quantization.disable_fake_quant)
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    file = right(net.apply(quantization.disable_observer), signal, X, tmp_path)
    assert [node.op_type for node in onnx.load(file.path).graph.node].count("LSTM") == 1
    assert isinstance(net.out.weight_fake_quant, quantization.FakeQuantizeBase)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items() if "observer" not in name)


def test_observers_of_a_prepared_module_are_left_out(tmp_path: Path) -> None:
    net: Any = _Net().eval()
    net.qconfig = quantization.default_qconfig
    net = quantization.prepare(net)
    net(signal(2, 4)[0])
    seen = net.quant.activation_post_process.max_val.clone()
    lstm_onnx.export(net, tmp_path / "m.onnx", example_inputs=(signal(2, 4)[0] * 9,), dynamic_shapes=X)
    assert torch.equal(net.quant.activation_post_process.max_val, seen)
    right(net, signal, X, tmp_path)


def test_an_observer_whose_output_a_hook_changes_stays(tmp_path: Path) -> None:
    net: Any = _Net().eval()
    net.quant = NoopObserver()
    net.quant.register_forward_hook(lambda _module, _args, output: output * 2)
    right(net, signal, X, tmp_path)
