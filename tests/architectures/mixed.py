"""Models with nn.GRU and nn.RNN, alone and beside nn.LSTM."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.architectures.architecture import BATCH_TIME, STATE, TIME_BATCH, Architecture, Draw, Inputs, seeded, signal


class GRUTagger(nn.Module):
    """A bidirectional GRU of two layers with scores for each step and the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, hidden = self.gru(x)
        return self.head(out), hidden


class CarriedGRU(nn.Module):
    """A GRU, time first, with its state in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 9, num_layers=2)
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        out, hidden = self.gru(x, hidden)
        return self.head(out), hidden


class PlainRNN(nn.Module):
    """nn.RNN with tanh or ReLU, and the class from its last state."""

    def __init__(self, nonlinearity: str, bidirectional: bool) -> None:
        super().__init__()
        self.rnn = nn.RNN(5, 8, nonlinearity=nonlinearity, bidirectional=bidirectional, batch_first=True)
        self.head = nn.Linear(16 if bidirectional else 8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, hidden = self.rnn(x)
        return self.head(out), self.head(hidden.transpose(0, 1).flatten(1))


class ThreeKinds(nn.Module):
    """An LSTM, a GRU and an RNN side by side; a gate decides how much each counts."""

    def __init__(self) -> None:
        super().__init__()
        kinds = (nn.LSTM, nn.GRU, nn.RNN)
        self.readers = nn.ModuleList(kind(4, 7, batch_first=True) for kind in kinds)
        self.gate = nn.Linear(4, len(kinds))

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([reader(x)[0] for reader in self.readers], dim=-1)
        shares = self.gate(x).softmax(dim=-1).unsqueeze(-2)
        return (outputs * shares).sum(dim=-1)


class LSTMThenGRU(nn.Module):
    """A BiLSTM encoder under a GRU decoder, which starts from the encoder's two ends."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 6, bidirectional=True, batch_first=True)
        self.decoder = nn.GRU(12, 12, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        memory, (hidden, _) = self.encoder(x)
        start = torch.cat([hidden[0], hidden[1]], dim=-1).unsqueeze(0)
        out, _ = self.decoder(memory, start)
        return self.head(out)


class ProjectedAndPlain(nn.Module):
    """A projected LSTM under a plain one, with the skip that equal widths allow."""

    def __init__(self) -> None:
        super().__init__()
        self.projected = nn.LSTM(6, 13, proj_size=6, batch_first=True)
        self.plain = nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.projected(x)[0]
        x = x + self.plain(x)[0]
        return self.head(x)


def _signal_and_hidden(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(time, batch, 4), draw.floats(2, batch, 9).tanh()


X = {"x": BATCH_TIME}

ARCHITECTURES = (
    Architecture("gru_tagger", seeded(GRUTagger), signal(4), X, 0, other_nodes={"GRU": 2}),
    Architecture(
        "carried_gru",
        seeded(CarriedGRU),
        _signal_and_hidden,
        {"x": TIME_BATCH, "hidden": STATE},
        0,
        other_nodes={"GRU": 2},
    ),
    Architecture("rnn_tanh", seeded(lambda: PlainRNN("tanh", True)), signal(5), X, 0, other_nodes={"RNN": 1}),
    Architecture("rnn_relu", seeded(lambda: PlainRNN("relu", False)), signal(5), X, 0, other_nodes={"RNN": 1}),
    Architecture("three_kinds", seeded(ThreeKinds), signal(4), X, 1, other_nodes={"GRU": 1, "RNN": 1}),
    Architecture("lstm_then_gru", seeded(LSTMThenGRU), signal(4), X, 1, other_nodes={"GRU": 1}),
    Architecture("projected_and_plain", seeded(ProjectedAndPlain), signal(6), X, 1, scan_nodes=1),
)
