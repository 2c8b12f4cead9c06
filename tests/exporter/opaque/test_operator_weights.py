"""Weights of recurrent modules that are computed or chosen, and attributes that were set by hand."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from lstm_onnx.exporter.opaque.operators import _parameters_of, replace_recurrent_modules
from tests.exporter.helpers import X, made, right, signal

from .test_operators import seeded

pytestmark = pytest.mark.sweep(36)


class OtherWeights(nn.Module):
    """Takes other weights at its second call."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        self.lstm.weight_ih_l0.data = self.lstm.weight_ih_l0.data * 1.5
        return self.lstm(out)[0]


def test_weights_that_change_from_call_to_call_are_refused(tmp_path: Path) -> None:
    module = OtherWeights()
    before = module.lstm.weight_ih_l0.detach().clone()
    with pytest.raises(ExportError, match=r"lstm: its weights differ from call to call \(test_operator_weights.py:"):
        made(module, signal(2, 4), X, tmp_path)
    assert torch.equal(module.lstm.weight_ih_l0, before)


class Computed(nn.Module):
    """Calls its LSTM with weights that it multiplies by a factor, which a subclass computes from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)

    def factor(self, _x: Tensor) -> Any:
        return 0.5

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: weight * self.factor(x) for name, weight in self.lstm.named_parameters()}
        result: Tensor = torch.func.functional_call(self.lstm, weights, (x,))[0]
        return result


class OfItsNumbers(Computed):
    def factor(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x.mean())  # the same where rows and steps repeat


class OfOneNumber(Computed):
    def factor(self, x: Tensor) -> float:
        return x.mean().item()


class OfLargeNumbers(Computed):
    def factor(self, x: Tensor) -> Tensor:
        return 1 + (x.max() > 20)


class OfItsSize(Computed):
    def factor(self, x: Tensor) -> float:
        return 1 / x.shape[1]


def test_weights_that_are_computed_from_constants_are_exported(tmp_path: Path) -> None:
    right(seeded(Computed()), signal, X, tmp_path)


@pytest.mark.parametrize("cls", [OfItsNumbers, OfOneNumber, OfLargeNumbers, OfItsSize])
def test_weights_that_follow_from_an_input_are_refused(cls: type[Computed], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"lstm: its weights differ .* no input, size or state may change"):
        made(cls(), signal(2, 4), X, tmp_path)


class Chosen(nn.Module):
    """Calls its LSTM with one of several weights, by an index."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3, batch_first=True)
        self.table = nn.Parameter(torch.rand(2, 12, 3))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(self.lstm, {"weight_hh_l0": self.table[index]}, (x,))[0]
        return result


def test_weights_that_an_index_chooses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="lstm: its weights differ from call to call"):
        made(Chosen(), (*signal(2, 4), torch.tensor(0)), X, tmp_path)


class Stepping(nn.Module):
    """A cell whose bias is 1, as in Tacotron 2."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        state = self.cell(x, (h, h) if isinstance(self.cell, nn.LSTMCell) else h)
        return state[0] if isinstance(state, tuple) else state  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [1, 0, "yes"])
def test_a_cells_bias_is_any_truth_value(kind: Any, bias: Any) -> None:
    recurrent = replace_recurrent_modules(Stepping(kind(4, 6, bias)))
    assert recurrent["cell"].spec.bias is bool(bias)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_sizes_and_flags_of_other_types(kind: Any) -> None:
    module = kind(4, 6, bidirectional=1)
    module.num_layers = np.int64(1)
    spec = replace_recurrent_modules(nn.ModuleDict({"net": module}))["net"].spec
    assert (spec.bidirectional, spec.num_layers) == (True, 1)
    assert type(spec.num_layers) is int


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("changed", [{"bias": False}, {"num_layers": 3}, {"bidirectional": True}])
def test_attributes_set_by_hand_that_do_not_fit_the_weights_are_refused(kind: Any, changed: dict[str, Any]) -> None:
    module = kind(4, 4, num_layers=2)
    vars(module).update(changed)
    recurrent = replace_recurrent_modules(module)[""]
    with pytest.raises(ExportError, match=rf"{kind.__name__}: its bias, num_layers, .* was changed after it was made"):
        _parameters_of(module, recurrent)


def test_attributes_set_by_hand_that_pytorch_takes() -> None:
    module: Any = nn.ModuleDict({"rnn": nn.RNN(4, 4, num_layers=2), "cell": nn.LSTMCell(4, 4)})
    module.rnn.num_layers, module.rnn.mode, module.cell.bias = 1, "RNN_RELU", False
    found = replace_recurrent_modules(module)
    assert (found["rnn"].spec.num_layers, found["rnn"].spec.nonlinearity) == (1, "relu")  # type: ignore[union-attr]
    assert len(_parameters_of(module.rnn, found["rnn"])) == 4
    assert found["cell"].spec.bias
