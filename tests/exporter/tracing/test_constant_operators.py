"""Weights that the module computes by operators that ONNX does not have: their values are in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import lstm_onnx
from lstm_onnx import ExportError

pytestmark = pytest.mark.sweep(6)

FEATURES, HIDDEN = 3, 4


class Orthogonal(nn.Module):
    """A parametrized Linear layer before the LSTM."""

    def __init__(self, computed_by: str) -> None:
        super().__init__()
        self.linear, self.lstm = nn.Linear(FEATURES, HIDDEN), nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        parametrizations.orthogonal(self.linear, orthogonal_map=computed_by)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(self.linear(x))[0]
        return y


class ExponentialInALoop(nn.Module):
    """A recurrence by a rotation, the exponential of a skew-symmetric matrix, as of unitary RNNs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.skew = nn.Linear(FEATURES, HIDDEN), nn.Parameter(0.3 * torch.randn(HIDDEN, HIDDEN))
        self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rotation, h = torch.matrix_exp(self.skew - self.skew.T), x.new_zeros(x.shape[0], HIDDEN)
        steps = []
        for t in range(x.shape[1]):
            h = torch.tanh(self.linear(x[:, t]) + h @ rotation)
            steps.append(h)
        y: Tensor = self.gru(torch.stack(steps, 1))[0]
        return y


class OfSeveralResults(nn.Module):
    """Operators of several results, and those that check what they computed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.gru = nn.Parameter(torch.randn(FEATURES, 5)), nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        left, scale, _ = torch.linalg.svd(self.weight, full_matrices=False)
        square = self.weight @ self.weight.T
        shift = torch.linalg.det(left) + torch.linalg.inv(square).sum() + torch.linalg.cholesky(square).sum()
        y: Tensor = self.gru(x @ left * scale)[0]
        return y + shift


@pytest.mark.parametrize(
    "made",
    [
        *(lambda way=way: Orthogonal(way) for way in ("householder", "cayley")),
        ExponentialInALoop,
        OfSeveralResults,
    ],
    ids=["householder", "cayley", "loop", "several"],
)
def test_the_values_are_in_the_file(made, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = made().eval(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 4, FEATURES),))
    x = torch.randn(3, 9, FEATURES)
    (found,) = lstm_onnx.load(path, provider="cpu", threads=1).run({"x": x.numpy()}).values()
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert lstm_onnx.verify(module, path, mutants="none")
    # What they are computed from is not: nothing reads it any more.
    shapes = [tuple(initializer.dims) for initializer in onnx.load(path).graph.initializer]
    assert (FEATURES, 5) not in shapes


def test_what_is_computed_may_be_an_output(tmp_path: Path) -> None:
    class Returned(OfSeveralResults):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return self.gru(x)[0], torch.linalg.svdvals(self.weight)

    module, path = Returned().eval(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 4, FEATURES),))
    found = lstm_onnx.load(path, provider="cpu", threads=1).run({"x": np.zeros((2, 4, FEATURES), np.float32)})
    np.testing.assert_allclose(found["output.1"], torch.linalg.svdvals(module.weight).detach().numpy(), rtol=1e-6)


def test_those_of_inputs_have_no_translation(tmp_path: Path) -> None:
    class OfTheInput(OfSeveralResults):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.gru(x)[0]
            return y + torch.linalg.inv(x.transpose(1, 2) @ x).sum()

    with pytest.raises(ExportError, match=r"test_constant_operators.*linalg_inv.* has no translation"):
        lstm_onnx.export(OfTheInput().eval(), tmp_path / "m.onnx", example_inputs=(torch.randn(2, 9, FEATURES),))
    assert not (tmp_path / "m.onnx").exists()
