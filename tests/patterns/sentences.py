"""One text as a vector: attention, maxima, two levels, a latent."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs, text
from tests.patterns.pattern import Pattern, trained

WORDS = 25


class SelfAttentiveSentence(nn.Module):
    """Several attentions over the steps of a sentence, their mean as its vector; softmax by transposes and views."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(WORDS, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 8, 1, batch_first=True)
        self.first, self.second, self.final = nn.Linear(8, 7), nn.Linear(7, 3), nn.Linear(8, 2)
        self.hops = 3

    def along(self, x: Tensor, axis: int = 1) -> Tensor:
        moved = x.transpose(axis, len(x.size()) - 1)
        size = moved.size()
        return F.softmax(moved.contiguous().view(-1, size[-1]), dim=-1).view(*size).transpose(axis, len(x.size()) - 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        outputs, _ = self.lstm(self.embeddings(x))
        attention = self.along(self.second(torch.tanh(self.first(outputs))), 1).transpose(1, 2)
        averaged = torch.sum(attention @ outputs, 1) / self.hops
        return F.log_softmax(self.final(averaged), dim=1), attention


class WeighedSentence(nn.Module):
    """Tokens and their lengths as one pair, of which only the tokens are read; one vector weighs the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 6, padding_idx=WORDS - 1)
        self.lstm = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True, dropout=0.5)
        self.tanh1, self.w = nn.Tanh(), nn.Parameter(torch.zeros(10))
        self.fc1, self.fc = nn.Linear(10, 6), nn.Linear(6, 3)

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        tokens, _ = x
        out, _ = self.lstm(self.embedding(tokens))
        alpha = F.softmax(torch.matmul(self.tanh1(out), self.w), dim=1).unsqueeze(-1)
        return self.fc(self.fc1(F.relu(torch.sum(out * alpha, 1))))


class WordsThenSentences(nn.Module):
    """A document (batch, sentences, words): attention over words makes sentences, over sentences the document."""

    def __init__(self) -> None:
        super().__init__()
        self.lookup = nn.Embedding(WORDS, 6)
        self.word_gru, self.sent_gru = nn.GRU(6, 4, bidirectional=True), nn.GRU(8, 4, bidirectional=True)
        self.word_weight, self.sent_weight = (nn.Parameter(torch.randn(8, 8) * 0.3) for _ in range(2))
        self.word_bias, self.sent_bias = (nn.Parameter(torch.zeros(1, 8)) for _ in range(2))
        self.word_context, self.sent_context = (nn.Parameter(torch.randn(8, 1)) for _ in range(2))
        self.fc = nn.Linear(8, 3)

    def attended(self, out: Tensor, weight: Tensor, bias: Tensor, context: Tensor) -> Tensor:
        scores = torch.matmul(torch.tanh(torch.matmul(out, weight) + bias), context).squeeze(-1).permute(1, 0)
        weights = F.softmax(scores, dim=-1).permute(1, 0)
        return torch.sum(out * weights.unsqueeze(-1).expand_as(out), 0)

    def forward(self, document: Tensor) -> Tensor:
        batch, sentences, words = document.size()
        flat = self.lookup(document.view(-1, words).permute(1, 0))
        out, _ = self.word_gru(flat.float())
        vectors = self.attended(out, self.word_weight, self.word_bias, self.word_context).view(batch, sentences, -1)
        out, _ = self.sent_gru(vectors.permute(1, 0, 2))
        return self.fc(self.attended(out, self.sent_weight, self.sent_bias, self.sent_context))


class PooledSentence(nn.Module):
    """A multilingual sentence's vector: the largest output of each unit, with the padding at minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(WORDS, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True)

    def forward(self, src_tokens: Tensor, src_lengths: Tensor) -> dict[str, Tensor | tuple[Tensor, ...]]:
        bsz, _ = src_tokens.size()
        x = self.embed_tokens(src_tokens).transpose(0, 1)
        size = (4, bsz, 5)
        h0, c0 = x.data.new(*size).zero_(), x.data.new(*size).zero_()
        packed = pack_padded_sequence(x, src_lengths.cpu(), enforce_sorted=False)
        out, (hiddens, cells) = self.lstm(packed, (h0, c0))
        x, _ = pad_packed_sequence(out, padding_value=0.0, total_length=src_tokens.size(1))

        def combined(outs: Tensor) -> Tensor:
            pairs = [torch.cat([outs[2 * i], outs[2 * i + 1]], dim=0).view(1, bsz, 10) for i in range(2)]
            return torch.cat(pairs, dim=0)

        padding = src_tokens.eq(0).t().unsqueeze(-1)
        x = x.float().masked_fill_(padding, float("-inf")).type_as(x)
        return {
            "sentemb": x.max(dim=0)[0],
            "encoder_out": (combined(hiddens), combined(cells)),
            "mask": padding.squeeze(-1),
        }


class SentenceAutoencoder(nn.Module):
    """Sorted here, encoded to a mean, and decoded from it beside the same words; logits over the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size, self.factor = 5, 2
        self.embedding = nn.Embedding(WORDS, 6)
        self.encoder_rnn = nn.GRU(6, 5, num_layers=1, bidirectional=True, batch_first=True)
        self.decoder_rnn = nn.GRU(6, 5, num_layers=1, bidirectional=True, batch_first=True)
        self.hidden2mean, self.hidden2logv = nn.Linear(10, 4), nn.Linear(10, 4)
        self.latent2hidden, self.outputs2vocab = nn.Linear(4, 10), nn.Linear(10, WORDS)

    def forward(self, input_sequence: Tensor, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch_size = input_sequence.size(0)
        sorted_lengths, order = torch.sort(length, descending=True)
        input_sequence = input_sequence[order]
        embedded = self.embedding(input_sequence)
        packed = pack_padded_sequence(embedded, sorted_lengths.data.tolist(), batch_first=True)
        _, hidden = self.encoder_rnn(packed)
        hidden = hidden.view(batch_size, self.hidden_size * self.factor)
        mean, logv = self.hidden2mean(hidden), self.hidden2logv(hidden)
        hidden = self.latent2hidden(mean).view(self.factor, batch_size, self.hidden_size)
        outputs, _ = self.decoder_rnn(packed, hidden)
        padded = pad_packed_sequence(outputs, batch_first=True)[0].contiguous()
        _, back = torch.sort(order)
        padded = padded[back]
        b, s, _ = padded.size()
        logp = F.log_softmax(self.outputs2vocab(padded.view(-1, padded.size(2))), dim=-1)
        return logp.view(b, s, WORDS), mean, logv


def _padded(batch: int, time: int, descending: bool = True) -> Inputs:
    draw = Draw(batch, time)
    lengths = draw.lengths(descending=descending)
    tokens = draw.tokens(WORDS)
    return torch.where(torch.arange(time) < lengths.unsqueeze(1), tokens, torch.ones_like(tokens)), lengths


PATTERNS = (
    Pattern(
        "self_attentive_sentence",
        "kaushalshetty/Structured-Self-Attention attention/model.py",
        trained(SelfAttentiveSentence),
        text(WORDS),
    ),
    Pattern(
        "weighed_sentence",
        "649453932/Chinese-Text-Classification-Pytorch models/TextRNN_Att.py",
        trained(WeighedSentence),
        lambda batch, time: ((Draw(batch, time).tokens(WORDS), Draw(batch, time).lengths()),),
    ),
    Pattern(
        "words_then_sentences",
        "uvipen/Hierarchical-attention-networks-pytorch src/word_att_model.py",
        trained(WordsThenSentences),
        lambda batch, time: (Draw(batch, time).tokens(WORDS, batch, time, 2 + time // 2),),
    ),
    Pattern(
        "pooled_sentence",
        "facebookresearch/fairseq examples/laser/laser_src/laser_lstm.py",
        trained(PooledSentence),
        lambda batch, time: (Draw(batch, time).padded_tokens(WORDS), Draw(batch, time).lengths()),
    ),
    Pattern(
        "sentence_autoencoder",
        "timbmg/Sentence-VAE model.py",
        trained(SentenceAutoencoder),
        _padded,
        # A view joins rows of different sentences, and torch.sort does not define the order of equal lengths.
        refused="sort does not define the order of equal numbers, and the outputs or states depend on it",
    ),
)
