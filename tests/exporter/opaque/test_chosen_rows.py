"""Rows that a mask chooses: there may be none, for which ONNX Runtime's recurrent operators end the process."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.exporter.helpers import BATCH_TIME, X_LENGTHS, agree, eager, made, signal


class Sequences(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], x.shape[1], 8)
        y[keep] = self.rnn(x[keep])[0]
        return y


class Packed(Sequences):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows = (lengths > 0).nonzero().squeeze(1)
        packed = nn.utils.rnn.pack_padded_sequence(x[rows], lengths[rows], batch_first=True, enforce_sorted=False)
        state = x[rows, 0, :1].expand(2, -1, 4)
        hn = self.rnn(packed, state.contiguous())[1]
        return x.new_zeros(x.shape[0], 4).index_copy(0, rows, hn[0])


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 4)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 4), []
        for t in range(x.shape[1]):
            rows = keep[:, t]
            h = h.clone()
            h[rows] = self.cell(x[:, t][rows], h[rows])
            outputs.append(h)
        return torch.stack(outputs, 1)


def kept(batch: int, count: int) -> Tensor:
    return torch.arange(batch) < count


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_sequences_of_no_row_or_some(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    module = Sequences(kind)
    shapes = {"x": BATCH_TIME, "keep": {0: "batch"}}
    result = made(module, (*signal(2, 4), kept(2, 1)), shapes, tmp_path)
    for batch, time, count in ((2, 4, 0), (1, 3, 1), (5, 2, 3), (1, 1, 0)):
        inputs = (*signal(batch, time), kept(batch, count))
        agree(result.run(inputs), eager(module, inputs))


def test_packed_sequences_of_some_rows(tmp_path: Path) -> None:
    module = Packed(nn.GRU)
    result = made(module, (*signal(3, 4), torch.tensor([4, 0, 2])), X_LENGTHS, tmp_path)
    for lengths in ([0, 3, 1], [4], [0, 0, 0, 2]):
        inputs = (*signal(len(lengths), 4), torch.tensor(lengths))
        agree(result.run(inputs), eager(module, inputs))


@pytest.mark.slow
def test_steps_of_no_row_or_some(tmp_path: Path) -> None:
    module = Steps()
    shapes = {"x": BATCH_TIME, "keep": BATCH_TIME}
    result = made(module, (*signal(2, 4), torch.ones(2, 4) > 0), shapes, tmp_path)
    for batch, time in ((2, 4), (1, 6), (3, 1)):
        (x,) = signal(batch, time)
        agree(result.run((x, x[..., 0] > 0)), eager(module, (x, x[..., 0] > 0)))
