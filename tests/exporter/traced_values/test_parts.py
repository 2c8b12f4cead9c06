"""Slices, chunks and splits of axes that are not fixed."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_onnx import ExportError, InputError
from tests.exporter.helpers import X_LENGTHS, Made, X, agree, eager, made, signal, with_lengths

pytestmark = pytest.mark.sweep(5)

Cut = Callable[[nn.LSTM, Tensor], Any]


class Cutting(nn.Module):
    def __init__(self, cut: Cut) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.cut = nn.LSTM(3, 4, batch_first=True), cut

    def forward(self, x: Tensor) -> Any:
        return self.cut(self.lstm, x)


def right_at(module: nn.Module, file: Made, shapes: list[tuple[int, int]]) -> None:
    """The file gives PyTorch's numbers at these batches and steps."""
    for batch, steps in shapes:
        agree(file.run(signal(batch, steps)), eager(module, signal(batch, steps)))


def test_slices_past_the_end(tmp_path: Path) -> None:
    """Of an example of 7 steps, none of these cuts anything off."""

    def slices(lstm: nn.LSTM, x: Tensor) -> Any:
        y = lstm(x)[0]
        last = y[:, -10:]
        rows = torch.arange(x.size(0))
        return [
            lstm(x[:, :10])[0],
            last.reshape(last.size(0), last.size(1) * 4),
            lstm(x[..., 1:10:3, :])[0],
            y[rows, None, -10:-1],
        ]

    module = Cutting(slices)
    file = made(module, signal(2, 7), X, tmp_path)
    right_at(module, file, [(1, 2), (3, 9), (2, 10), (2, 11), (1, 40)])


def test_a_slice_of_a_slice_that_is_as_long_as_the_example(tmp_path: Path) -> None:
    """torch decides that the axis has this size after the trace, and a longer example is traced."""
    module = Cutting(lambda lstm, x: lstm(x)[0][:, :12][:, -5:])
    right_at(module, made(module, signal(2, 5), X, tmp_path), [(1, 2), (3, 5), (2, 6), (2, 11), (1, 40)])


def test_as_many_parts_at_all_sizes(tmp_path: Path) -> None:
    """Of the steps, and of the batch, as two towers with the same weights take pairs."""

    def parts(lstm: nn.LSTM, x: Tensor) -> Any:
        one, other = x.chunk(2)
        return [
            (lstm(one)[0][:, -1] - lstm(other)[0][:, -1]).norm(dim=1),
            torch.cat([lstm(part)[0] for part in torch.chunk(x, chunks=3, dim=-2)], 1),
            *(lstm(part)[0] for part in torch.tensor_split(x, 4, dim=1)),
            *(lstm(part)[0] for part in torch.unsafe_chunk(x, 2, dim=1)),
        ]

    module = Cutting(parts)
    file = made(module, signal(4, 11), X, tmp_path)
    right_at(module, file, [(2, 5), (4, 7), (6, 8), (2, 9), (8, 14)])


def test_fewer_chunks_at_some_sizes_are_refused(tmp_path: Path) -> None:
    """9 steps in 4 chunks are 3 chunks of 3 steps."""
    module = Cutting(lambda lstm, x: torch.stack([lstm(part)[0][:, -1] for part in x.chunk(4, 1)]))
    file = made(module, signal(2, 12), X, tmp_path)
    right_at(module, file, [(2, 10), (2, 11), (1, 13), (2, 16)])
    with pytest.raises(InputError, match="time is 10 or more"):
        file.run(signal(2, 9))


def test_the_heads_of_an_axis_that_was_folded_with_the_longest_length(tmp_path: Path) -> None:
    """torch knows only that the axis is twice the batch."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            y = pad_packed_sequence(
                self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0], batch_first=True
            )[0]
            heads = y.view(len(x), y.size(1), 2, 2).permute(2, 0, 1, 3).reshape(-1, y.size(1), 2)
            return torch.cat(torch.split(heads.sum(1), len(x)), -1)

    module = Heads().eval()
    file = made(module, with_lengths(3, 5), X_LENGTHS, tmp_path)
    agree(file.run(with_lengths(2, 7)), eager(module, with_lengths(2, 7)))


def test_split_by_a_number_of_steps(tmp_path: Path) -> None:
    module = Cutting(lambda lstm, x: torch.stack([lstm(part)[0][:, -1] for part in x.split(5, dim=1)]))
    with pytest.raises(ExportError, match=r"3 parts where time is 11 to 15.*Dim\('time', min=11, max=15\)"):
        made(module, signal(2, 12), X, tmp_path)
    bounded = {"x": {0: "batch", 1: torch.export.Dim("time", min=11, max=15)}}
    right_at(module, made(module, signal(2, 12), bounded, tmp_path), [(1, 11), (3, 14), (2, 15)])
