"""Models that pack their sequences: padding costs nothing, and the reverse direction starts at each row's end."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn as rnn_utils
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import (
    BATCH,
    BATCH_TIME,
    STATE,
    TIME_BATCH,
    Architecture,
    Draw,
    Inputs,
    seeded,
)

WORDS = 20
FEATURES = 5


class PackedSentiment(nn.Module):
    """Only the last hidden state is used, so nothing is padded again."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 10, batch_first=True)
        self.fc = nn.Linear(10, 2)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.fc(hidden[-1])


class PackedBothEnds(nn.Module):
    """Both directions' ends, with the lengths taken to the CPU, where packing wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 7, padding_idx=0)
        self.lstm = nn.LSTM(7, 6, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.fc(torch.cat([hidden[-2, :, :], hidden[-1, :, :]], dim=1))


class PackedTagger(nn.Module):
    """A tag for each step, padded back to the width that came in."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 9, batch_first=True)
        self.tag = nn.Linear(9, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(x), lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.lstm(packed)
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
        return self.tag(padded).log_softmax(-1)


class TrimmedTagger(nn.Module):
    """The output is as long as the longest row, not as the padded input; the lengths come back too."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 8, bidirectional=True, batch_first=True)
        self.tag = nn.Linear(16, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.lstm(packed)
        padded, valid = pad_packed_sequence(out, batch_first=True)
        return self.tag(padded), valid


class SortedTagger(nn.Module):
    """The caller sorts the batch by length, longest first (enforce_sorted stays True)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 7, num_layers=2, batch_first=True)
        self.tag = nn.Linear(7, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        out, (_, cell) = self.lstm(rnn_utils.pack_padded_sequence(x, lengths, batch_first=True))
        padded, _ = rnn_utils.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        return self.tag(padded), cell[-1]


class SelfSortingTagger(nn.Module):
    """Sorts by length itself, packs, and puts the rows back in the caller's order."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 8, batch_first=True)
        self.tag = nn.Linear(8, 3)
        self.rate = nn.Linear(8, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        ordered, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(x[order], ordered, batch_first=True, enforce_sorted=True)
        out, (hidden, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
        back = order.argsort()
        return self.tag(padded[back]), self.rate(hidden[-1].index_select(0, back))


class TimeFirstPacked(nn.Module):
    """Packing without batch_first; the head sees the output and the hidden states of both layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2)
        self.tag = nn.Linear(8, 4)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(self.embedding(tokens), lengths, enforce_sorted=False)
        out, (hidden, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(out, total_length=tokens.size(0))
        return self.tag(padded), self.tag(hidden)


class MarkedPadding(nn.Module):
    """Padded with -1, which later stages read as "no frame"."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 6, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        padded, _ = pad_packed_sequence(out, batch_first=True, padding_value=-1.0, total_length=x.size(1))
        return padded


class PackedMaxPool(nn.Module):
    """Padded with minus infinity, so that the padding never is the maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 6, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(12, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        padded, _ = pad_packed_sequence(out, batch_first=True, padding_value=float("-inf"))
        return self.fc(padded.amax(dim=1))


class WidePadding(nn.Module):
    """Padded to three steps more than came in, for a decoder that adds markers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 7, batch_first=True)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1) + 3)
        return self.head(padded)


class PackedWithStates(nn.Module):
    """Packed sequences that start from given states and give their last states back."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor, lengths: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, (hn, cn) = self.lstm(packed, (h0, c0))
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
        return self.head(padded), hn, cn


class CountingSentiment(nn.Module):
    """Counts the tokens that are not padding to get the lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 7, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(14, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = (tokens != 0).sum(1)
        packed = pack_padded_sequence(self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        return self.fc(hidden.transpose(0, 1).flatten(1))


class PackedMean(nn.Module):
    """A two-layer BiLSTM whose outputs are averaged over the valid steps by the lengths that padding gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 6, num_layers=2, bidirectional=True, batch_first=True, dropout=0.1)
        self.fc = nn.Linear(12, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        padded, valid = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.fc(padded.sum(dim=1) / valid.unsqueeze(1).to(padded.dtype))


class PackedTwoLSTMs(nn.Module):
    """The packed output of one LSTM goes straight into the next."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.LSTM(FEATURES, 6, bidirectional=True, batch_first=True)
        self.high = nn.LSTM(12, 8, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        packed, _ = self.low(packed)
        packed, _ = self.high(packed)
        padded, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.size(1))
        return self.fc(padded)


class PackedGRU(nn.Module):
    """A packed GRU with tags for each step and a class from its last state, beside an LSTM on the same rows."""

    def __init__(self, beside_lstm: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, 8, bidirectional=True, batch_first=True)
        self.lstm = nn.LSTM(FEATURES, 4, batch_first=True) if beside_lstm else None
        self.tag = nn.Linear(16, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, hidden = self.gru(packed)
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
        ends = self.tag(torch.cat([hidden[0], hidden[1]], dim=-1))
        if self.lstm is None:
            return self.tag(padded), ends
        return self.tag(padded), ends, self.lstm(packed)[1][0].squeeze(0)


class PackedProjection(nn.Module):
    """A projected LSTM on packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 9, proj_size=4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, (hidden, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
        return self.head(padded), self.head(hidden[-1])


def _tokens(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.tokens(WORDS), draw.lengths()


def _tokens_time_first(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.tokens(WORDS, time, batch), draw.lengths()


def _padded_tokens(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).padded_tokens(WORDS),)


def _frames(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, FEATURES), draw.lengths()


def _trimmed_frames(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, FEATURES), draw.lengths(trimmed=True)


def _sorted_frames(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, FEATURES), draw.lengths(descending=True)


def _frames_and_states(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {
        "x": draw.floats(batch, time, FEATURES),
        "lengths": draw.lengths(),
        "h0": draw.floats(2, batch, 6).tanh(),
        "c0": draw.floats(2, batch, 6),
    }


TOKENS = {"tokens": BATCH_TIME, "lengths": BATCH}
FRAMES = {"x": BATCH_TIME, "lengths": BATCH}

ARCHITECTURES = (
    Architecture("packed_sentiment", seeded(PackedSentiment), _tokens, TOKENS, 1),
    Architecture("packed_both_ends", seeded(PackedBothEnds), _tokens, TOKENS, 1),
    Architecture("packed_tagger", seeded(PackedTagger), _tokens, FRAMES, 1),
    Architecture("packed_tagger_trimmed", seeded(TrimmedTagger), _trimmed_frames, FRAMES, 1),
    Architecture("packed_sorted", seeded(SortedTagger), _sorted_frames, FRAMES, 2),
    Architecture("packed_self_sorting", seeded(SelfSortingTagger), _frames, FRAMES, 1),
    Architecture(
        "packed_time_first", seeded(TimeFirstPacked), _tokens_time_first, {"tokens": TIME_BATCH, "lengths": BATCH}, 2
    ),
    Architecture("packed_marked_padding", seeded(MarkedPadding), _frames, FRAMES, 1),
    Architecture("packed_max_pool", seeded(PackedMaxPool), _trimmed_frames, FRAMES, 1),
    Architecture("packed_wide_padding", seeded(WidePadding), _frames, FRAMES, 1),
    Architecture(
        "packed_with_states", seeded(PackedWithStates), _frames_and_states, {**FRAMES, "h0": STATE, "c0": STATE}, 2
    ),
    Architecture("packed_counting", seeded(CountingSentiment), _padded_tokens, {"tokens": BATCH_TIME}, 1),
    Architecture("packed_mean", seeded(PackedMean), _trimmed_frames, FRAMES, 2),
    Architecture("packed_two_lstms", seeded(PackedTwoLSTMs), _frames, FRAMES, 2),
    Architecture("packed_gru", seeded(lambda: PackedGRU(False)), _frames, FRAMES, 0, other_nodes={"GRU": 1}),
    Architecture("packed_gru_and_lstm", seeded(lambda: PackedGRU(True)), _frames, FRAMES, 1, other_nodes={"GRU": 1}),
    Architecture("packed_projection", seeded(PackedProjection), _frames, FRAMES, 0, scan_nodes=1),
)
