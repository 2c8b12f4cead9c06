"""Models with one answer for a sequence: what they keep of the steps differs."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import BATCH, BATCH_TIME, Architecture, Draw, Inputs, seeded, signal, text

WORDS = 25


class LastHiddenClassifier(nn.Module):
    """Sentiment from the last layer's last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8)
        self.lstm = nn.LSTM(8, 10, num_layers=2, batch_first=True)
        self.fc = nn.Linear(10, 1)

    def forward(self, review: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embedding(review))
        return torch.sigmoid(self.fc(hidden[-1])).squeeze(1)


class BothEndsClassifier(nn.Module):
    """Sentiment from the ends that the two directions of the last layer reach."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8)
        self.encoder = nn.LSTM(8, 7, num_layers=2, bidirectional=True, batch_first=True, dropout=0.4)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(14, 3)

    def forward(self, review: Tensor) -> Tensor:
        _, (hidden, _) = self.encoder(self.embedding(review))
        ends = torch.cat((hidden[-2], hidden[-1]), dim=1)
        return self.fc(self.dropout(ends))


class LastOutputClassifier(nn.Module):
    """Sequence class from the last step's output, through a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size=6, hidden_size=11, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(11, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x)
        return self.mlp(F.relu(out[:, -1, :]))


class AllStatesClassifier(nn.Module):
    """Hidden and cell states of all layers and directions, side by side, as features."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(2 * 4 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, states = self.lstm(x)
        features = torch.cat(states, dim=2).permute(1, 0, 2).flatten(1)
        return self.fc(features)


class MeanPoolClassifier(nn.Module):
    """Sentiment from the mean of the outputs over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 9)
        self.lstm = nn.LSTM(9, 8, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(16, 2)

    def forward(self, review: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(review))
        return self.fc(out.mean(dim=1))


class MaxPoolClassifier(nn.Module):
    """Sentiment from the largest output of each unit over time, by the pooling that takes the channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 9)
        self.lstm = nn.LSTM(9, 13, batch_first=True)
        self.fc = nn.Linear(13, 2)

    def forward(self, review: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(review))
        return self.fc(F.adaptive_max_pool1d(out.transpose(1, 2), 1).squeeze(-1))


class MeanAndMaxClassifier(nn.Module):
    """Mean and maximum over time together, the maximum by torch.max with indices."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x)
        largest, _ = torch.max(out, 1)
        return self.fc(torch.cat([out.mean(1), largest], dim=1))


class MaskedMeanClassifier(nn.Module):
    """The mean over the valid steps alone, which a float mask marks."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.fc = nn.Linear(12, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(tokens))
        weights = mask.unsqueeze(-1)
        pooled = (out * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
        return self.fc(pooled)


class AttentionPoolClassifier(nn.Module):
    """A learned weight for each step; a bool mask keeps the padding out.  The weights are an output as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 6, bidirectional=True, batch_first=True)
        self.project = nn.Linear(12, 8)
        self.context = nn.Parameter(torch.randn(8))
        self.fc = nn.Linear(12, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        out, _ = self.lstm(self.embedding(tokens))
        scores = torch.tanh(self.project(out)) @ self.context
        weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=1)
        pooled = torch.bmm(weights.unsqueeze(1), out).squeeze(1)
        return self.fc(pooled), weights


class LastValidStepClassifier(nn.Module):
    """The output at each row's last valid step, picked by index, without packing."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 9, batch_first=True)
        self.fc = nn.Linear(9, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.lstm(x)
        last = out[torch.arange(out.size(0)), lengths - 1]
        return self.fc(last)


class GatheredStepClassifier(nn.Module):
    """The same by gather, time first."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 9, num_layers=2)
        self.fc = nn.Linear(9, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out, _ = self.lstm(x.transpose(0, 1))
        index = (lengths - 1).view(1, -1, 1).expand(1, -1, out.shape[2])
        return self.fc(out.gather(0, index).squeeze(0))


def _text_and_float_mask(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"tokens": draw.tokens(WORDS), "mask": draw.mask().to(torch.get_default_dtype())}


def _text_and_mask(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.tokens(WORDS), draw.mask()


def _signal_and_lengths(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 5), draw.lengths()


REVIEW = {"review": BATCH_TIME}
MASKED = {"tokens": BATCH_TIME, "mask": BATCH_TIME}
WITH_LENGTHS = {"x": BATCH_TIME, "lengths": BATCH}

ARCHITECTURES = (
    Architecture("sentiment_last_hidden", seeded(LastHiddenClassifier), text(WORDS), REVIEW, 2),
    Architecture("sentiment_both_ends", seeded(BothEndsClassifier), text(WORDS), REVIEW, 2),
    Architecture("sequence_last_output", seeded(LastOutputClassifier), signal(6), {"x": BATCH_TIME}, 1),
    Architecture("sequence_all_states", seeded(AllStatesClassifier), signal(5), {"x": BATCH_TIME}, 2),
    Architecture("sentiment_mean_pool", seeded(MeanPoolClassifier), text(WORDS), REVIEW, 1),
    Architecture("sentiment_max_pool", seeded(MaxPoolClassifier), text(WORDS), REVIEW, 1),
    Architecture("sequence_mean_and_max", seeded(MeanAndMaxClassifier), signal(4), {"x": BATCH_TIME}, 1),
    Architecture("sentiment_masked_mean", seeded(MaskedMeanClassifier), _text_and_float_mask, MASKED, 1),
    Architecture("sentiment_attention_pool", seeded(AttentionPoolClassifier), _text_and_mask, MASKED, 1),
    Architecture("sequence_last_valid_step", seeded(LastValidStepClassifier), _signal_and_lengths, WITH_LENGTHS, 1),
    Architecture("sequence_gathered_step", seeded(GatheredStepClassifier), _signal_and_lengths, WITH_LENGTHS, 2),
)
