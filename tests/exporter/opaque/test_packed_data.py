"""The data of packed sequences, changed by hand: other features, one number a step, and words within sentences."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from tests.exporter.helpers import X_LENGTHS, agree, eager, made, right, with_lengths

pytestmark = pytest.mark.sweep(9)


def packed(x: Tensor, lengths: Tensor) -> PackedSequence:
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def padded(sequence: PackedSequence) -> Tensor:
    return pad_packed_sequence(sequence, batch_first=True)[0]


def with_data(sequence: PackedSequence, data: Tensor) -> PackedSequence:
    return PackedSequence(data, sequence.batch_sizes, sequence.sorted_indices, sequence.unsorted_indices)


class Normalized(nn.Module):
    """Batch norm over the valid steps."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.lstm = nn.BatchNorm1d(3), nn.LSTM(3, 4, batch_first=True)
        self.norm.running_mean = torch.tensor([0.5, -1.0, 2.0])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        sequence = packed(x, lengths)
        return padded(self.lstm(with_data(sequence, self.norm(sequence.data)))[0])


class Attention(nn.Module):
    """A weight for each step, which is padded by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.score = nn.GRU(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        sequence = self.gru(packed(x, lengths))[0]
        weights = padded(with_data(sequence, self.score(sequence.data).squeeze(1).exp()))
        weights = weights / weights.sum(dim=1, keepdim=True)
        return (padded(sequence) * weights.unsqueeze(2)).sum(dim=1)


class Frames(nn.Module):
    """Pictures as steps; padded by -1 as they were, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(1, 2, 2), nn.LSTM(2, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = packed(x[:, :, None, :2, None] * x.new_ones(1, 2), lengths)
        steps = with_data(frames, self.conv(frames.data).flatten(1))
        marked = pad_packed_sequence(frames, batch_first=True, padding_value=-1.0, total_length=x.shape[1])[0]
        return padded(self.lstm(steps)[0]), marked


@pytest.mark.parametrize("module", [Normalized, Attention, Frames])
def test_the_data_of_any_shape(module: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    right(module(), with_lengths, X_LENGTHS, tmp_path)


class Document(Attention):
    """Sentences of words: those that are there are the batch of the words' GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.sentences = nn.Embedding(20, 3), nn.GRU(8, 4, batch_first=True)

    def forward(self, words: Tensor, sentences: Tensor, lengths: Tensor) -> Tensor:
        texts, counts = packed(words, sentences), packed(lengths, sentences)
        vectors = super().forward(self.embedding(texts.data), counts.data)
        return padded(self.sentences(with_data(texts, vectors))[0])


def document(batch: int, sentences: int, words: int) -> tuple[Tensor, ...]:
    tokens = torch.arange(batch * sentences * words).reshape(batch, sentences, words) * 7 % 20
    lengths = torch.arange(batch * sentences).reshape(batch, sentences) % words + 1
    lengths[:, 0] = words
    return tokens, torch.tensor([sentences - row % sentences for row in range(batch)]), lengths


@pytest.mark.slow
def test_sentences_of_a_document(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, inputs = Document().eval(), document(2, 3, 4)
    named = {0: "batch", 1: "sentences"}
    shapes = {"words": {**named, 2: "time"}, "sentences": {0: "batch"}, "lengths": named}
    result = made(module, inputs, shapes, tmp_path)
    assert [spec.high for spec in result.model.metadata.inputs] == [19, "sentences", "time"]
    assert lstm_onnx.check(result.path)
    found = made(module, inputs, None, tmp_path)
    for sizes in [(1, 1, 1), (3, 5, 2), (4, 2, 6)]:
        agree(result.run(document(*sizes)), eager(module, document(*sizes)))
    agree(found.run(document(3, 5, 4)), eager(module, document(3, 5, 4)))


class Characters(nn.Module):
    """A sentence of words of characters: the lengths of all words are one row for their LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.LSTM(3, 4, batch_first=True)
        self.sentence = nn.LSTM(4, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        batch, words, characters, _ = x.shape
        sequence = packed(x.view(batch * words, characters, 3), lengths.view(batch * words))
        return self.sentence(self.words(sequence)[1][0][0].view(batch, words, 4))[0]


def test_axes_of_one_size_keep_one_name_where_nobody_gave_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Characters().eval()
    x, lengths = torch.randn(2, 3, 4, 3), torch.tensor([[4, 2, 3], [1, 1, 4]])
    model = made(module, (x, lengths), None, tmp_path).model
    assert model.inputs["x"].shape[:2] == model.inputs["lengths"].shape
    assert model.metadata.axis_limits == {}
    alone = (x[:1, :1], lengths[:1, :1])
    agree(list(model.run({"x": alone[0].numpy(), "lengths": alone[1].numpy()}).values()), eager(module, alone))


class WrittenData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        sequence = packed(x, lengths)
        sequence.data.clamp_(-8, 8)
        return padded(self.lstm(sequence)[0])


class WrittenBefore(WrittenData):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = x * 1
        sequence = packed(x, lengths)
        x.clamp_(-8, 8)
        return padded(self.lstm(sequence)[0])


class WrittenLengths(WrittenData):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        lengths = lengths.clone()
        sequence = packed(x, lengths)
        lengths.clamp_(max=60)
        return padded(self.lstm(sequence)[0])


class WrittenPadded(WrittenData):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        sequence = self.lstm(packed(x, lengths))[0]
        found = padded(sequence).clamp_(-0.7, 0.7)
        return found + padded(sequence)


@pytest.mark.parametrize("kind", [WrittenData, WrittenBefore, WrittenLengths, WrittenPadded])
def test_what_is_written_in_place_is_other_memory_than_a_packed_sequence(kind: type[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(lstm_onnx.ExportError, match=r"of a packed sequence (was|were) written in place"):
        made(kind().eval(), (torch.randn(2, 5, 3), torch.tensor([5, 3])), None, tmp_path)
