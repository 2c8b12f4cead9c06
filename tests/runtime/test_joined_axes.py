"""An output whose axis holds both the batch and time: chunks of several sequences, and of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import Batcher, InputError, Model
from lstm_onnx.runtime.chunks import run_chunks

from .models import randoms


class Scores(nn.Module):
    """The scores of all steps of all sequences, in one axis."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=batch_first)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(steps and sequences, 3)."""
        scores: torch.Tensor = self.head(self.lstm(x)[0])
        return scores.view(-1, 3)


def scores(folder: Path, *, batch_first: bool) -> Model:
    """A file of `Scores`, opened."""
    axes = {"x": {0: "batch", 1: "time"} if batch_first else {0: "time", 1: "batch"}}
    x = torch.zeros(2, 3, 4)
    module = Scores(batch_first=batch_first).eval()
    lstm_onnx.export(module, folder / "m.onnx", example_inputs=x, dynamic_shapes=axes, states="explicit")
    return lstm_onnx.load(folder / "m.onnx", provider="cpu", threads=1)


def test_the_batch_before_time(tmp_path: Path) -> None:
    model, x = scores(tmp_path, batch_first=True), randoms(2, 6, 4)
    for refused in (lambda: model.stream(batch=2), lambda: run_chunks(model, {"x": x}, 2)):
        with pytest.raises(InputError, match="has all steps of one sequence before those of the next"):
            refused()
    with pytest.raises(InputError, match="not known which axis"):
        Batcher(model)
    stream, whole = model.stream(), model.run({"x": x[:1]})["output"]
    np.testing.assert_allclose(np.concatenate([stream(x[:1, :4]), stream(x[:1, 4:])]), whole, rtol=0, atol=1e-6)


def test_a_pool_gives_a_row_for_each_step_of_each_stream(tmp_path: Path) -> None:
    model, x = scores(tmp_path, batch_first=True), randoms(2, 6, 4)
    pool, whole = model.pool(2), model.run({"x": x})["output"].reshape(2, 6, 3)
    slots = [pool.open(), pool.open()]
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        found = np.asarray(pool.step(slots, x[:, start:stop])).reshape(2, -1, 3)
        np.testing.assert_allclose(found, whole[:, start:stop], rtol=0, atol=1e-6)


def test_time_before_the_batch(tmp_path: Path) -> None:
    model, x = scores(tmp_path, batch_first=False), randoms(6, 2, 4)
    stream, whole = model.stream(batch=2), model.run({"x": x})["output"]
    np.testing.assert_allclose(np.concatenate([stream(x[:4]), stream(x[4:])]), whole, rtol=0, atol=1e-6)
    model.pool(2)
