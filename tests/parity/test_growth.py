"""Chaotic models, in which roundings grow: right files pass where one run of PyTorch was right by chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from lstm_onnx import export, load
from lstm_onnx.parity.comparison import Verification
from lstm_onnx.parity.expected import Expected
from lstm_onnx.parity.growth import GROWTH_NOTE
from lstm_onnx.parity.lstm.cases import draw_case
from lstm_onnx.parity.lstm.verification import LSTMVerification, expectations
from lstm_onnx.parity.modules.verification import ModuleVerification
from lstm_onnx.parity.replay import replay

pytestmark = pytest.mark.sweep(6)

STEPS = 128


class Amplifier(nn.Module):
    """A layer whose roundings grow."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.gru = _scaled(nn.GRU(1, 48), scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(x)[0]


def _scaled(layer: nn.RNNBase, scale: float) -> nn.RNNBase:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-scale, scale)
    return layer


def _verification(bare: bool, scale: float, path: Path) -> tuple[Verification, Expected]:
    """A verification and a case of many steps in which PyTorch's own run is exact."""
    module = _scaled(nn.LSTM(1, 48), scale) if bare else Amplifier(scale)
    if not path.exists():
        shapes = {"x": {0: "time", 1: "batch"}}
        options = {} if bare else {"example_inputs": torch.randn(5, 2, 1), "dynamic_shapes": shapes}
        export(module, path, check=False, **options)
    verification: LSTMVerification | ModuleVerification
    rng = np.random.default_rng(0)
    if bare:
        verification = LSTMVerification(load(path, "cpu", threads=1), module)
        found = next(expectations(verification.models, verification.spec, draw_case(verification.spec, rng, 2, STEPS)))
    else:
        verification = ModuleVerification(load(path, "cpu", threads=1), module)
        found = verification.subject.expect(verification.subject.case_at(rng, {"time": STEPS, "batch": 2}))
    (call,) = found.calls
    return verification, replace(found, calls=(replace(call, native=call.reference),))


def _change_weights(path: Path, factor: float) -> None:
    model = onnx.load(path)
    weight = next(one for one in model.graph.initializer if one.name.endswith("R"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    onnx.save(model, path)


@pytest.mark.parametrize(("bare", "scale"), [(True, 1.4), (False, 1.2)])
def test_a_right_file_passes_and_a_wrong_one_does_not(bare: bool, scale: float, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    right, case = _verification(bare, scale, path)
    assert not replay(right.model, case).passed
    explained = right.explained(right.models, case)
    assert explained is not None
    assert replay(right.model, explained).passed
    assert not explained.inconclusive
    assert GROWTH_NOTE in right.notes
    _change_weights(path, 1.02)
    wrong, _ = _verification(bare, scale, path)
    assert wrong.explained(wrong.models, case) is None
    assert GROWTH_NOTE not in wrong.notes


def test_where_roundings_do_not_grow_one_run_is_the_yardstick(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    _, case = _verification(False, 0.1, path)
    _change_weights(path, 1 + 2e-4)
    wrong, _ = _verification(False, 0.1, path)
    assert not replay(wrong.model, case).passed
    assert wrong.explained(wrong.models, case) is None
