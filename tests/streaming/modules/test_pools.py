"""Streams of a pool that start at different times: what is done once, at the first step, is done for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import lstm_onnx
from lstm_onnx import InputError

from .models import FEATURES
from .stages import Rnn

STEPS = 12


class Prefixed(nn.Module):
    """Learned steps come before the sequence, and the first step of a convolution is taken off all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = nn.Parameter(torch.randn(1, FEATURES, 2))
        self.conv, self.rnn = nn.Conv1d(FEATURES, 3, 3), Rnn(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([self.prefix.expand(x.shape[0], -1, -1), x.transpose(1, 2)], 2)
        y = self.conv(y)
        return self.rnn(y - y[:, :, :1]).transpose(1, 2)


def stepped(pool: lstm_onnx.Pool, slots: list[int], chunks: np.ndarray) -> list[np.ndarray]:
    """One call where the pool takes these slots together, else one for each."""
    try:
        return list(pool.step(slots, chunks))
    except InputError:
        assert len({pool.phase(slot) for slot in slots}) > 1
        return [pool.step([slot], chunk[np.newaxis])[0] for slot, chunk in zip(slots, chunks, strict=True)]


def test_streams_that_start_later_have_a_first_step_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Prefixed().eval()
    x = torch.randn(3, STEPS, FEATURES)
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs={"x": x}, dynamic_shapes=axes, states="explicit")
    with torch.no_grad():
        whole = module(x).numpy()
    with lstm_onnx.load(tmp_path / "m.onnx", "cpu", threads=1) as model:
        pool = model.pool(slots=3)
        slots: list[int] = []
        parts: list[list[np.ndarray]] = [[], [], []]
        at = [0, 0, 0]
        while min(at) < STEPS:
            if len(slots) < 3:
                slots.append(pool.open())
            active = [row for row in range(len(slots)) if at[row] < STEPS]
            chunks = np.stack([x[row, at[row] : at[row] + 3].numpy() for row in active])
            for row, part in zip(active, stepped(pool, [slots[row] for row in active], chunks), strict=True):
                parts[row].append(part)
                at[row] += 3
    for row, found in enumerate(parts):
        np.testing.assert_allclose(np.concatenate(found), whole[row], rtol=0, atol=1e-5)
