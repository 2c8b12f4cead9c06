"""Sizes beside a loop over an axis: lists as long as one (indices, start tokens), and one that goes by lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, unpad_sequence

from tests.exporter.helpers import X_LENGTHS, X, agree, eager, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(6)


class Decoder(nn.Module):
    """Greedy, from a start token for each sequence; what it ends with stands beside each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out, self.embedding = nn.GRUCell(3, 4), nn.Linear(4, 5), nn.Embedding(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        h, outputs = x.new_zeros(batch, 4), [None] * steps
        tokens = torch.LongTensor([1] * batch)
        for t in range(steps):
            h = self.cell(self.embedding(tokens) + x[:, t], h)
            outputs[t] = self.out(h)
            tokens = outputs[t].argmax(1)
        last = torch.cat([h] * steps, 1).view(batch, steps, 4)
        return torch.cat([torch.stack(outputs, 1), last, torch.stack([h * 2] * steps, 1)], -1)


class LastOfLoop(nn.Module):
    """A cell of its own over the steps from the end; the step that each sequence's length says."""

    def __init__(self) -> None:
        super().__init__()
        self.update, self.recurrent = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = x[:, list(range(x.size(1) - 1, -1, -1))]
        h, rows = x.new_zeros(x.size(0), 4), []
        for t in range(x.size(1)):
            h = torch.tanh(self.update(x[:, t]) + self.recurrent(h) * h)
            rows.append(h)
        return torch.stack(rows, 1)[list(range(x.size(0))), lengths - 1]


class CutRows(nn.Module):
    """Cuts rows at their lengths one by one, before anything else is done with them, as old sentence encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows = [row[:length] for row, length in zip(self.lstm(x)[0], lengths.tolist(), strict=True)]
        return torch.stack([row.max(0)[0] for row in rows])


class Unpadded(nn.Module):
    """The last step of each row without its padding."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        rows = unpad_sequence(self.lstm(x)[0], lengths, batch_first=True)
        return torch.stack([row[-1] for row in rows])


class LastOfEach(nn.Module):
    """The last valid step of each row, indexed by a Python number; a loop reads and writes the rows of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        last = torch.stack([y[row, length.item() - 1] for row, length in enumerate(lengths)])
        for row in range(y.size(0)):
            last[row] = last[row] + y[row, int(lengths[row]) - 1, :]
        return last


class Pointing(nn.Module):
    """Looks at what a packed encoder gave, which is as long as the longest sequence, in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.cell = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.GRUCell(4, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]
        y = y[:, :, :4] + y[:, :, 4:]
        h, rows = y[:, 0], []
        for _ in range(x.size(1)):
            scores = torch.softmax((y * h.unsqueeze(1)).sum(-1), 1)
            h = self.cell((scores.unsqueeze(-1) * y).sum(1), h)
            rows.append(scores)
        return torch.stack(rows, 1)


def test_a_loop_over_what_lengths_cut_is_right_at_every_size(tmp_path: Path) -> None:
    right(Pointing(), with_lengths, X_LENGTHS, tmp_path)


def test_a_loop_that_cuts_rows_at_their_lengths_is_right_at_every_size(tmp_path: Path) -> None:
    right(CutRows(), with_lengths, X_LENGTHS, tmp_path)


def test_a_loop_over_rows_without_their_padding_is_right_at_every_size(tmp_path: Path) -> None:
    right(Unpadded(), with_lengths, X_LENGTHS, tmp_path)


def test_a_loop_that_takes_the_last_step_of_each_row_is_right_at_every_size(tmp_path: Path) -> None:
    right(LastOfEach(), with_lengths, X_LENGTHS, tmp_path)


def test_start_tokens_and_repeated_tensors_are_right_at_every_size(tmp_path: Path) -> None:
    right(Decoder(), signal, X, tmp_path)


def test_indices_are_right_at_every_size(tmp_path: Path) -> None:
    right(LastOfLoop(), with_lengths, X_LENGTHS, tmp_path)


class Messages(nn.Module):
    """A graph's nodes, which send their states along its edges in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.send, self.cell = nn.Linear(4, 3), nn.LSTMCell(3, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), 4)
        for x_t in x.unbind(1):
            received = torch.zeros_like(x_t).index_add(0, edges[1], self.send(h)[edges[0]])
            h, c = self.cell(x_t + received, (h, c))
        return h


def test_indices_of_rows_that_are_too_large_at_smaller_sizes(tmp_path: Path) -> None:
    def graph(nodes: int, steps: int, edges: int) -> tuple[Tensor, Tensor]:
        ends = torch.arange(2 * edges) % nodes
        ends[0] = nodes - 1
        return (*signal(nodes, steps), ends.reshape(2, edges))

    found = Messages().eval()
    shapes = {"x": {0: "nodes", 1: "time"}, "edges": {1: "edges"}}
    result = made(found, graph(5, 4, 7), shapes, tmp_path)
    for inputs in (graph(2, 1, 3), graph(9, 6, 20), graph(1, 2, 1)):
        agree(result.run(inputs), eager(found, inputs))
