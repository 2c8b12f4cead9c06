"""Where all steps are summed, their order changes nothing; elsewhere it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from lstm_onnx.parity.mutants.self_test import mutated, opened

UNREVERSED = next(mutator for mutator in MUTATORS if mutator.name == "reverse output unreversed")
GATE = torch.tensor([1.0, 0.0, 2.0, 0.0])


class Reduced(nn.Module):
    """A projected LSTM of two directions, of whose output `read` makes something."""

    def __init__(self, read: Callable[[Tensor], Tensor], batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, proj_size=2, bidirectional=True, batch_first=batch_first)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.lstm(x)[0])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("read", "batch_first", "any_order"),
    [
        (lambda y: y.mean(0) * GATE, False, True),
        (lambda y: torch.tanh(y * GATE + 1).amax(1), True, True),
        (lambda y: (y.sum(0), y.amax(0)), False, True),
        (lambda y: (y.sum(0), y), False, False),
        (lambda y: y.mean(0), True, False),  # over the batch
        (lambda y: torch.relu(y @ torch.ones(4, 4)).mean(0), False, False),  # the two directions meet at each step
        (lambda y: (y[..., :2] * y[..., 2:]).sum(0), False, False),
    ],
)
def test_the_order_of_what_is_reduced(
    read: Callable[[Tensor], Tensor], batch_first: bool, any_order: bool, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    names = ("batch", "time") if batch_first else ("time", "batch")
    shapes = {"x": dict(enumerate(names))}
    module = Reduced(read, batch_first).eval()
    lstm_onnx.export(module, path, example_inputs=torch.randn(4, 2, 3), dynamic_shapes=shapes, check=False)
    graph = onnx.load(path)
    assert len(Edit(graph).layers) == 1
    outcome, copy = mutated(graph, UNREVERSED, shapes=known_shapes(graph))
    assert outcome.applied != any_order
    # The same change without the proof.
    applied, copy = mutated(graph, UNREVERSED)
    assert applied.applied
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    feeds = {"x": np.random.default_rng(0).standard_normal((5, 6, 3)).astype(np.float32)}
    right, other = model.run(feeds), opened(model, copy).run(feeds)
    assert all(np.allclose(right[name], other[name], atol=1e-6) for name in right) == any_order
