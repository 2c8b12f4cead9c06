"""Encoders and decoders."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.architectures.architecture import BATCH_TIME, TIME_BATCH, Architecture, Draw, Inputs, seeded, signal

SOURCE_WORDS = 21
TARGET_WORDS = 18
TARGET = {0: "batch", 1: "target_time"}


class Encoder(nn.Module):
    """Source tokens (batch, time) to its LSTM's outputs and last states."""

    def __init__(self, size: int, hidden: int, layers: int = 1, bidirectional: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SOURCE_WORDS, size)
        self.lstm = nn.LSTM(size, hidden, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, source: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.lstm(self.embedding(source))


class Decoder(nn.Module):
    """Target tokens (batch, target_time) and a start state to outputs of the decoder's LSTM."""

    def __init__(self, size: int, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TARGET_WORDS, size)
        self.lstm = nn.LSTM(size, hidden, layers, batch_first=True)

    def forward(self, target: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        out, _ = self.lstm(self.embedding(target), state)
        return out


class TeacherForced(nn.Module):
    """The decoder starts from the encoder's last states and reads the true target."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(8, 12, layers=2)
        self.decoder = Decoder(7, 12, layers=2)
        self.head = nn.Linear(12, TARGET_WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(source)
        return self.head(self.decoder(target, state))


class TimeFirstCopier(nn.Module):
    """Time first, one embedding for both sides, and a target as long as the source."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(SOURCE_WORDS, 9)
        self.read = nn.LSTM(9, 10)
        self.write = nn.LSTM(9, 10)
        self.head = nn.Linear(10, SOURCE_WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, (hidden, cell) = self.read(self.embed(source))
        out, _ = self.write(self.embed(target), (hidden, cell))
        return self.head(out).log_softmax(dim=-1)


class DotAttention(nn.Module):
    """Scores are dot products of decoder and encoder outputs; the alignment is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(8, 11)
        self.decoder = Decoder(8, 11)
        self.combine = nn.Linear(22, 11)
        self.head = nn.Linear(11, TARGET_WORDS)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        memory, state = self.encoder(source)
        queries = self.decoder(target, state)
        alignment = torch.bmm(queries, memory.transpose(1, 2)).softmax(dim=-1)
        context = torch.bmm(alignment, memory)
        mixed = torch.tanh(self.combine(torch.cat((context, queries), dim=-1)))
        return self.head(mixed), alignment


class AdditiveAttention(nn.Module):
    """A small network scores each pair of decoder and encoder step, for all decoder steps at once."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(7, 10)
        self.decoder = Decoder(7, 10)
        self.query = nn.Linear(10, 8, bias=False)
        self.key = nn.Linear(10, 8)
        self.energy = nn.Linear(8, 1, bias=False)
        self.head = nn.Linear(20, TARGET_WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, state = self.encoder(source)
        out = self.decoder(target, state)
        pairs = torch.tanh(self.query(out).unsqueeze(2) + self.key(memory).unsqueeze(1))
        weights = torch.softmax(self.energy(pairs).squeeze(-1), dim=2)
        context = torch.einsum("bts,bsh->bth", weights, memory)
        return self.head(torch.cat([out, context], dim=2))


class Bridged(nn.Module):
    """A linear bridge merges the two directions' last states into the start of a decoder of the same depth."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.hidden = 2, 6
        self.encoder = Encoder(8, self.hidden, layers=self.layers, bidirectional=True)
        self.bridge_h = nn.Linear(2 * self.hidden, 9)
        self.bridge_c = nn.Linear(2 * self.hidden, 9)
        self.decoder = Decoder(8, 9, layers=self.layers)
        self.head = nn.Linear(9, TARGET_WORDS)

    def merge(self, state: Tensor) -> Tensor:
        """From (layers * 2, batch, hidden) to (layers, batch, 2 * hidden)."""
        batch = state.size(1)
        by_layer = state.view(self.layers, 2, batch, self.hidden).transpose(1, 2)
        return by_layer.reshape(self.layers, batch, 2 * self.hidden)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, (hidden, cell) = self.encoder(source)
        start = torch.tanh(self.bridge_h(self.merge(hidden))), self.bridge_c(self.merge(cell))
        return self.head(self.decoder(target, start))


class RepeatAutoencoder(nn.Module):
    """The last hidden state, repeated for each step, is all that the decoder sees."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.LSTM(4, 8, batch_first=True)
        self.decode = nn.LSTM(8, 6, batch_first=True)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, _) = self.encode(x)
        repeated = hidden[-1].unsqueeze(1).repeat(1, x.size(1), 1)
        decoded, _ = self.decode(repeated)
        return self.out(decoded)


class ExpandAutoencoder(nn.Module):
    """The same time first with expand, a bottleneck between, and the reconstruction error beside the reconstruction."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.LSTM(4, 10, num_layers=2)
        self.squeeze = nn.Linear(10, 3)
        self.decode = nn.LSTM(3, 10)
        self.out = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        _, (hidden, _) = self.encode(x)
        code = self.squeeze(hidden[-1])
        decoded, _ = self.decode(code.expand(x.shape[0], -1, -1))
        reconstruction = self.out(decoded)
        return {"reconstruction": reconstruction, "error": (reconstruction - x).abs().mean(dim=(0, 2)), "code": code}


class SentenceVAE(nn.Module):
    """A variational autoencoder of sequences; in eval mode the code is its mean, and the decoder starts from it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.LSTM(4, 7, batch_first=True, bidirectional=True)
        self.mean = nn.Linear(14, 5)
        self.log_variance = nn.Linear(14, 5)
        self.start = nn.Linear(5, 8)
        self.decode = nn.LSTM(4, 8, batch_first=True)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, (hidden, _) = self.encode(x)
        ends = torch.cat([hidden[0], hidden[1]], dim=-1)
        mean, log_variance = self.mean(ends), self.log_variance(ends)
        code = mean
        if self.training:
            code = code + torch.randn_like(code) * (0.5 * log_variance).exp()
        h0 = torch.tanh(self.start(code)).unsqueeze(0)
        shifted = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        decoded, _ = self.decode(shifted, (h0, torch.zeros_like(h0)))
        return self.out(decoded), mean, log_variance


def _pairs(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.tokens(SOURCE_WORDS), draw.tokens(TARGET_WORDS, batch, time + 2)


def _equal_pairs_time_first(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.tokens(SOURCE_WORDS, time, batch), draw.tokens(SOURCE_WORDS, time, batch)


def _signal_time_first(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(time, batch, 4),)


PAIRS = {"source": BATCH_TIME, "target": TARGET}

ARCHITECTURES = (
    Architecture("teacher_forced", seeded(TeacherForced), _pairs, PAIRS, 4),
    Architecture(
        "time_first_copier",
        seeded(TimeFirstCopier),
        _equal_pairs_time_first,
        {"source": TIME_BATCH, "target": TIME_BATCH},
        2,
    ),
    Architecture("dot_attention", seeded(DotAttention), _pairs, PAIRS, 2),
    Architecture("additive_attention", seeded(AdditiveAttention), _pairs, PAIRS, 2),
    Architecture("bridged_seq2seq", seeded(Bridged), _pairs, PAIRS, 4),
    Architecture("repeat_autoencoder", seeded(RepeatAutoencoder), signal(4), {"x": BATCH_TIME}, 2),
    Architecture("expand_autoencoder", seeded(ExpandAutoencoder), _signal_time_first, {"x": TIME_BATCH}, 3),
    Architecture("sentence_vae", seeded(SentenceVAE), signal(4), {"x": BATCH_TIME}, 2),
)
