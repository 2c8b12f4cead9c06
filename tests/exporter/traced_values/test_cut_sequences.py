"""Sequences that are cut at their lengths, and padded, packed or concatenated."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return, no-untyped-call, arg-type"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence

from lstm_onnx import ExportError
from lstm_onnx.exporter.traced_values.cut_sequences import SplitSequences, padded
from tests.exporter.helpers import X_LENGTHS, agree, eager, made, right, with_lengths

pytestmark = pytest.mark.sweep(8)

WORDS = {"words": {0: "batch", 1: "time"}, "chars": {0: "batch", 1: "time", 2: "characters"}}


class Words(nn.Module):
    """Codes a word by its characters; the words of all sentences are in one axis, without padding."""

    def __init__(self, join: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.join = nn.Embedding(9, 3), join
        self.chars, self.lstm = nn.LSTM(3, 4, batch_first=True), nn.LSTM(4, 3, batch_first=True)

    def forward(self, words: Tensor, chars: Tensor) -> Tensor:
        mask = words.ne(0)
        coded = self.chars(self.embedding(chars[mask]))[1][0][-1]
        return self.join(self, coded, mask.sum(1))


def padded_and_run(self: Words, coded: Tensor, counts: Tensor) -> Tensor:
    return self.lstm(pad_sequence(torch.split(coded, counts.tolist()), True))[0]


def padded_by_a_number(_: Words, coded: Tensor, counts: Tensor) -> Tensor:
    return pad_sequence(coded.split([int(n) for n in counts], dim=0), padding_value=-2.5)


def packed(self: Words, coded: Tensor, counts: Tensor) -> Tensor:
    sequences = pack_sequence(coded.split(tuple(counts.tolist())), enforce_sorted=False)
    return pad_packed_sequence(self.lstm(sequences)[0], batch_first=True)[0]


def sentences(*counts: int, time: int, characters: int = 3) -> tuple[Tensor, Tensor]:
    """Words and their characters, for a number of words in each sentence."""
    draw = torch.Generator().manual_seed(time)
    words = (torch.arange(time) < torch.tensor(counts).unsqueeze(1)).long()
    return words, torch.randint(1, 9, (*words.shape, characters), generator=draw)


@pytest.mark.parametrize("join", [padded_and_run, padded_by_a_number, packed], ids=lambda join: join.__name__)
def test_parts_of_the_words_of_all_sentences_are_right(join: Any, tmp_path: Path) -> None:
    module = Words(join)
    file = made(module, sentences(2, 4, 1, time=4), WORDS, tmp_path)
    for inputs in (sentences(1, time=1, characters=1), sentences(2, 1, 3, 2, time=6), sentences(5, 5, time=5)):
        agree(file.run(inputs), eager(module, inputs))
    if join is padded_by_a_number:
        inputs = sentences(0, 3, time=3)
        agree(file.run(inputs), eager(module, inputs))


class Rows(nn.Module):
    """What a function makes of the outputs of an LSTM and the lengths."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.join = nn.LSTM(3, 4, batch_first=True), join

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.join(self.lstm(x)[0], lengths)


def numbered(y: Tensor, lengths: Tensor) -> Tensor:
    return pad_sequence([y[i, :n] for i, n in enumerate(lengths.tolist())], batch_first=True)


def time_first(y: Tensor, lengths: Tensor) -> Tensor:
    y = y.transpose(0, 1)
    return pad_sequence([y[: lengths[i], i] for i in range(y.shape[1])], padding_value=7.0)


def written_later(y: Tensor, lengths: Tensor) -> Tensor:
    y, columns = y.clone(), torch.tensor([2, 0])
    rows = [y[i, :n] for i, n in enumerate(lengths.tolist())]
    y.mul_(3)
    return pad_sequence(rows, batch_first=True)[:, :, columns]


def side_by_side(y: Tensor, lengths: Tensor) -> Tensor:
    return torch.cat([row[:n] for row, n in zip(y, lengths, strict=True)], dim=0)


@pytest.mark.parametrize("join", [numbered, time_first, side_by_side, written_later], ids=lambda join: join.__name__)
def test_rows_that_are_cut_at_their_lengths_are_right(join: Any, tmp_path: Path) -> None:
    module = Rows(join)
    file = right(module, with_lengths, X_LENGTHS, tmp_path)
    assert "Scan" not in file.operators
    x = with_lengths(3, 4)[0]
    for lengths in ([2, 3, 1], [0, 2, 0], [0, 0, 0], [9, 1, 4], [-1, 2, -9]):
        inputs = x, torch.tensor(lengths)
        agree(file.run(inputs), eager(module, inputs))


def means(y: Tensor, lengths: Tensor) -> Tensor:
    return torch.stack([part.mean(0) for part in torch.split(y[:, -1], lengths.tolist())])  # here


def test_parts_that_are_taken_one_by_one_are_refused_by_their_line(tmp_path: Path) -> None:
    inputs = torch.randn(6, 4, 3), torch.tensor([3, 1, 2])
    with pytest.raises(ExportError, match="one by one, and their number and sizes") as caught:
        made(Rows(means), inputs, {"x": {0: "rows", 1: "time"}, "lengths": {0: "batch"}}, tmp_path)
    assert "# here" in str(caught.value)


def test_padding_on_the_left_is_refused() -> None:
    with pytest.raises(ExportError, match="only on the right"):
        padded(SplitSequences(torch.ones(3), torch.tensor([1, 2])), padding_side="left")


def test_lengths_that_are_not_all_words_fail_as_in_pytorch(tmp_path: Path) -> None:
    module = Rows(lambda y, lengths: pad_sequence(torch.split(y[:, -1], lengths.tolist()), True))
    axes = {"x": {0: "rows", 1: "time"}, "lengths": {0: "batch"}}
    file = made(module, (torch.randn(6, 4, 3), torch.tensor([3, 1, 2])), axes, tmp_path)
    for lengths in ([2, 1, 2], [4, 1, 2]):
        with pytest.raises(Exception, match="ONNX Runtime failed"):
            file.run((torch.randn(6, 4, 3), torch.tensor(lengths)))
