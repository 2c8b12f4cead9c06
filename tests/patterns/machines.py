"""Logs, machines, fields and sensors: what is normal, what grows, where one is."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained

State = tuple[Tensor, Tensor]


class AnomalyPredictor(nn.Module):
    """A recurrent class by its name, a flat encoder and decoder around it, a skip, flags for what is returned."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inputs, self.hidden, self.drop = 3, 6, nn.Dropout(0.5)
        self.encoder, self.decoder = nn.Linear(3, 6), nn.Linear(6, 3)
        if kind in ["LSTM", "GRU"]:
            self.rnn: nn.RNNBase = getattr(nn, kind)(6, 6, 2, dropout=0.5)
        else:
            nonlinearity = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}[kind]
            self.rnn = nn.RNN(6, 6, 2, nonlinearity=nonlinearity, dropout=0.5)

    def forward(self, input: Tensor, hidden: Any, return_hiddens: bool = False, noise: bool = False) -> Any:
        emb = self.drop(self.encoder(input.contiguous().view(-1, self.inputs))).view(-1, input.size(1), self.hidden)
        if noise:
            hidden = (F.dropout(hidden[0], training=True, p=0.9), F.dropout(hidden[1], training=True, p=0.9))
        output, hidden = self.rnn(emb, hidden)
        output = self.drop(output)
        decoded = self.decoder(output.view(output.size(0) * output.size(1), output.size(2)))
        decoded = decoded.view(output.size(0), output.size(1), decoded.size(1)) + input
        return (decoded, hidden, output) if return_hiddens else (decoded, hidden)


class SequenceCode(nn.Module):
    """One sequence (time, features) to a vector and back: LSTMs of falling and rising width, a matrix at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.LSTM(3, 8, batch_first=True), nn.LSTM(8, 4, batch_first=True)])
        self.up = nn.ModuleList([nn.LSTM(4, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)])
        self.dense_matrix = nn.Parameter(torch.rand((8, 3)), requires_grad=True)
        self.h_activ: nn.Module | None = nn.Sigmoid()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps = x.shape[0]
        x = x.unsqueeze(0)
        for index, layer in enumerate(self.down):
            x, (h_n, _) = layer(x)
            if self.h_activ and index < len(self.down) - 1:
                x = self.h_activ(x)
        code = h_n.squeeze()
        x = code.repeat(steps, 1).unsqueeze(0)
        for index, layer in enumerate(self.up):
            x, _ = layer(x)
            if self.h_activ and index < len(self.up) - 1:
                x = self.h_activ(x)
        return torch.mm(x.squeeze(0), self.dense_matrix), code


class BilinearOdometry(nn.Module):
    """Products of all pairs of sensor axes beside the axes; what the LSTM read is read again by the head."""

    def __init__(self) -> None:
        super().__init__()
        self.bilinear = nn.Bilinear(6, 6, 24)
        self.lstm = nn.LSTM(30, 7, 2, batch_first=True, dropout=0.2)
        self.linear1, self.linear2 = nn.Linear(37, 8), nn.Linear(8, 2)
        self.hidden: State | None = None

    def zeros(self, batch: int) -> State:
        h0 = torch.zeros(2, batch, 7).to(self.linear1.weight.device)
        return h0, torch.zeros_like(h0)

    def forward(self, input: Tensor) -> Tensor:
        mixed = torch.cat([input, self.bilinear(input, input)], dim=2)
        output, self.hidden = self.lstm(mixed, self.zeros(input.size(0)))
        return self.linear2(self.linear1(torch.cat([mixed, output], dim=2)))


class CropClassifier(nn.Module):
    """Layer norms around an LSTM whose forward is called by name; classes from the cell states of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inlayernorm, self.clayernorm = nn.LayerNorm(5), nn.LayerNorm((6 + 6) * 2)
        self.lstm = nn.LSTM(5, 6, num_layers=2, bias=False, batch_first=True, dropout=0.3, bidirectional=True)
        self.linear = nn.Linear(24, 4, bias=True)

    def logits(self, x: Tensor) -> Tensor:
        x = self.inlayernorm(x)
        _, last = self.lstm.forward(x)
        _, c = last
        layers, batch, hidden = c.shape
        c = self.clayernorm(c.transpose(0, 1).contiguous().view(batch, layers * hidden))
        return self.linear(c)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.logits(x), dim=-1)


class LogAnomaly(nn.Module):
    """A list of features of a log and the device to make zeros on, as an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_size, self.num_layers = 6, 2
        self.lstm0, self.lstm1 = nn.LSTM(1, 6, 2, batch_first=True), nn.LSTM(3, 6, 2, batch_first=True)
        self.fc = nn.Linear(12, 5)
        self.attention_size = self.hidden_size

    def forward(self, features: list[Tensor], device: str) -> Tensor:
        outs = []
        for given, lstm in zip(features, (self.lstm0, self.lstm1), strict=True):
            h0 = torch.zeros(self.num_layers, given.size(0), self.hidden_size).to(device)
            c0 = torch.zeros(self.num_layers, given.size(0), self.hidden_size).to(device)
            outs.append(lstm(given, (h0, c0))[0][:, -1, :])
        return self.fc(torch.cat(outs, -1))


def _predictor(batch: int, time: int, flag: bool = False) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(time, batch, 3), draw.floats(2, batch, 6).tanh(), flag


ANOMALY = "chickenbestlover/RNN-Time-series-Anomaly-Detection model/model.py"

PATTERNS = (
    Pattern(
        "anomaly_gru",
        ANOMALY,
        trained(lambda: AnomalyPredictor("GRU")),
        lambda batch, time: _predictor(batch, time, True),
    ),
    Pattern("anomaly_relu", ANOMALY, trained(lambda: AnomalyPredictor("RNN_RELU")), _predictor),
    Pattern(
        "sequence_code",
        "shobrook/sequitur sequitur/models/lstm_ae.py",
        trained(SequenceCode),
        lambda batch, time: (Draw(batch, time).floats(time, 3),),
        one_sequence=True,
    ),
    Pattern("bilinear_odometry", "Sachini/ronin source/model_temporal.py", trained(BilinearOdometry), signal(6)),
    Pattern(
        "crop_classifier",
        "dl4sits/BreizhCrops breizhcrops/models/LongShortTermMemory.py",
        trained(CropClassifier),
        signal(5),
    ),
    Pattern(
        "log_anomaly",
        "donglee-afar/logdeep logdeep/models/lstm.py",
        trained(LogAnomaly),
        lambda batch, time: (
            [Draw(batch, time).floats(batch, time, 1), Draw(batch, time).floats(batch, time, 3)],
            "cpu",
        ),
    ),
)
