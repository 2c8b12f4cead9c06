"""Models with an answer for every token: taggers and language models."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import (
    BATCH_TIME,
    STATE,
    TIME_BATCH,
    Architecture,
    Draw,
    Inputs,
    seeded,
    text,
    text_time_first,
)

WORDS = 30
CHARACTERS = 17
WORD_WIDTH = 6
TAGS = 5


class PosTagger(nn.Module):
    """Log probabilities of part-of-speech tags, time first as nn.LSTM has it by default."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 10)
        self.lstm = nn.LSTM(10, 12)
        self.to_tags = nn.Linear(12, TAGS)

    def forward(self, sentence: Tensor) -> Tensor:
        states, _ = self.lstm(self.embed(sentence))
        return F.log_softmax(self.to_tags(states), dim=-1)


class BatchFirstPosTagger(nn.Module):
    """The same with the batch first; the head sees flat rows, as cross entropy takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size = 9
        self.embed = nn.Embedding(WORDS, 8, padding_idx=0)
        self.dropout = nn.Dropout(0.3)
        self.lstm = nn.LSTM(8, self.hidden_size, batch_first=True)
        self.classify = nn.Linear(self.hidden_size, TAGS)

    def forward(self, sentence: Tensor) -> Tensor:
        embedded = self.dropout(self.embed(sentence))
        states, (_, _) = self.lstm(embedded)
        flat = states.contiguous().view(-1, self.hidden_size)
        return F.log_softmax(self.classify(flat), dim=1)


class CharacterTagger(nn.Module):
    """Two LSTMs: one reads the characters of each word, the other the words with what the first made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.char_embed = nn.Embedding(CHARACTERS, 5)
        self.char_lstm = nn.LSTM(5, 6, batch_first=True)
        self.word_embed = nn.Embedding(WORDS, 7)
        self.word_lstm = nn.LSTM(7 + 6, 11, batch_first=True)
        self.head = nn.Linear(11, TAGS)

    def forward(self, words: Tensor, characters: Tensor) -> Tensor:
        batch, time, width = characters.shape
        spelled = self.char_embed(characters.reshape(batch * time, width))
        _, (last, _) = self.char_lstm(spelled)
        spelling = last[-1].reshape(batch, time, -1)
        merged = torch.cat([self.word_embed(words), spelling], dim=-1)
        return F.log_softmax(self.head(self.word_lstm(merged)[0]), dim=-1)


class TwoStageCharacterTagger(nn.Module):
    """One LSTM after the other over the characters of a line, time first, the second on the first's tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, 8)
        self.first = nn.LSTM(8, 14)
        self.second = nn.LSTM(14, 6, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, line: Tensor) -> Tensor:
        low, _ = self.first(self.embedding(line))
        high, _ = self.second(torch.tanh(low))
        return self.head(high)


class EmissionTagger(nn.Module):
    """The BiLSTM under a CRF: emission scores, and the best score of any path's next tag after each step."""

    def __init__(self) -> None:
        super().__init__()
        hidden = 16
        self.embed = nn.Embedding(WORDS, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, hidden // 2, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.emit = nn.Linear(hidden, TAGS)
        self.transitions = nn.Parameter(torch.randn(TAGS, TAGS))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.lstm.flatten_parameters()
        features, _ = self.lstm(self.embed(tokens))
        emissions = self.emit(features)
        onward = (emissions.unsqueeze(-1) + self.transitions).amax(dim=2)
        return emissions, onward


class TwoWayTagger(nn.Module):
    """Two LSTMs in opposite directions, the second on the flipped sentence, instead of bidirectional=True."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8)
        self.ahead = nn.LSTM(8, 7, batch_first=True)
        self.back = nn.LSTM(8, 7, batch_first=True)
        self.head = nn.Linear(14, TAGS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        right, _ = self.ahead(x)
        left, _ = self.back(torch.flip(x, dims=[1]))
        return self.head(torch.cat((right, left.flip(1)), dim=2))


class TiedLanguageModel(nn.Module):
    """Next-word scores with the embedding's own matrix as the decoder."""

    def __init__(self) -> None:
        super().__init__()
        size = 12
        self.encoder = nn.Embedding(WORDS, size)
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.LSTM(size, size, num_layers=2, dropout=0.5)
        self.decoder = nn.Linear(size, WORDS)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.5, 0.5)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor, hidden: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, hidden = self.rnn(self.drop(self.encoder(tokens)), hidden)
        scores = self.decoder(self.drop(output)).view(-1, WORDS)
        return F.log_softmax(scores, dim=1), hidden


class OneHotCharacterModel(nn.Module):
    """A character model without an embedding: one-hot rows into the LSTM, probabilities of the last step out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(CHARACTERS, 10, num_layers=3, batch_first=True)
        self.out = nn.Linear(10, CHARACTERS)

    def forward(self, characters: Tensor) -> Tensor:
        rows = F.one_hot(characters, CHARACTERS).to(self.out.weight.dtype)
        states = self.lstm(rows)[0]
        return self.out(states[:, -1, :]).softmax(-1)


def _words_and_characters(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"words": draw.tokens(WORDS), "characters": draw.tokens(CHARACTERS, batch, time, WORD_WIDTH)}


def _text_and_state(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    state = draw.floats(2, batch, 12).tanh(), draw.floats(2, batch, 12)
    return draw.tokens(WORDS, time, batch), state


ARCHITECTURES = (
    Architecture("pos_tagger", seeded(PosTagger), text_time_first(WORDS), {"sentence": TIME_BATCH}, 1),
    Architecture("pos_tagger_batch_first", seeded(BatchFirstPosTagger), text(WORDS), {"sentence": BATCH_TIME}, 1),
    Architecture(
        "character_tagger",
        seeded(CharacterTagger),
        _words_and_characters,
        {"words": BATCH_TIME, "characters": BATCH_TIME},
        2,
    ),
    Architecture(
        "two_stage_character_tagger",
        seeded(TwoStageCharacterTagger),
        text_time_first(CHARACTERS),
        {"line": TIME_BATCH},
        2,
    ),
    Architecture("emission_tagger", seeded(EmissionTagger), text(WORDS), {"tokens": BATCH_TIME}, 2),
    Architecture("two_way_tagger", seeded(TwoWayTagger), text(WORDS), {"tokens": BATCH_TIME}, 2),
    Architecture(
        "tied_language_model",
        seeded(TiedLanguageModel),
        _text_and_state,
        {"tokens": TIME_BATCH, "hidden": (STATE, STATE)},
        2,
    ),
    Architecture(
        "one_hot_character_model", seeded(OneHotCharacterModel), text(CHARACTERS), {"characters": BATCH_TIME}, 3
    ),
)
