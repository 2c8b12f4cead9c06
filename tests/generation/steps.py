"""Modules that compute a step, small and drawn, and the Python loops that their files must equal."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lstm_onnx

TOKENS = 11
BATCH_TIME = {0: "batch", 1: "time"}


class Language(nn.Module):
    """Tokens (batch, time) to numbers for each token; two LSTM layers whose states the exporter adds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(TOKENS, 5), nn.LSTM(5, 12, 2, batch_first=True)
        self.head = nn.Linear(12, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0])


class TimeFirst(nn.Module):
    """Tokens (time, batch) of int32, with a GRU; other classes of numbers than `Language`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(TOKENS, 5), nn.GRU(5, 12), nn.Linear(12, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.gru(self.embedding(tokens))[0])


class Rows(Language):
    """A row for each step of each sequence, as a loss takes them: those of a sequence together."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).reshape(-1, TOKENS)


class RowsTimeFirst(TimeFirst):
    """The same: those of a step together."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).reshape(-1, TOKENS)


class Forecast(nn.Module):
    """The next two numbers of each sequence, (batch, 2), from the last step alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 12, batch_first=True), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    """A step of one token with its state as an argument, over features that stay; it says itself when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.encoder = nn.Embedding(TOKENS, 5), nn.Linear(4, 12)
        self.cell, self.head, self.stop = nn.GRUCell(17, 12), nn.Linear(24, TOKENS), nn.Linear(12, 1)

    def forward(self, token: Tensor, h: Tensor, features: Tensor) -> dict[str, Tensor]:
        keys = torch.tanh(self.encoder(features))
        weights = torch.softmax((keys @ h.unsqueeze(2)).squeeze(2), 1)
        found = (weights.unsqueeze(1) @ keys).squeeze(1)
        h = self.cell(torch.cat([self.embedding(token), found], 1), h)
        return {"logits": self.head(torch.cat([h, found], 1)), "h_next": h, "end": torch.sigmoid(self.stop(h))}


class HandWritten(nn.Module):
    """States that no recurrent layer of torch has: the caller names them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner, self.head = nn.Embedding(TOKENS, 5), nn.Linear(17, 12), nn.Linear(12, TOKENS)
        self.cell = nn.GRUCell(5, 12)

    def forward(self, tokens: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(tokens)
        mean = 0.5 * mean + 0.5 * torch.tanh(self.inner(torch.cat([x, mean], 1)))
        return self.head(mean + self.cell(x)), mean


class Peephole(nn.Module):
    """A Python loop, whose states only the file has; the same step without it is not in the module."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(TOKENS, 5), nn.Linear(6, TOKENS)
        self.x, self.h, self.peep = nn.Linear(5, 24), nn.Linear(6, 24), nn.Parameter(torch.randn(6))

    def forward(self, tokens: Tensor) -> Tensor:
        x, outputs = self.embedding(tokens), []
        h = c = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            i, f, g, o = (self.x(x[:, t]) + self.h(h)).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i + self.peep * c) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return self.head(torch.stack(outputs, 1))


class Convolved(nn.Module):
    """A causal convolution before the LSTM: earlier steps are kept in a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.conv = nn.Embedding(TOKENS, 5), nn.Conv1d(5, 5, 3)
        self.lstm, self.head = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.relu(self.conv(nn.functional.pad(self.embedding(tokens).transpose(1, 2), (2, 0))))
        return self.head(self.lstm(x.transpose(1, 2))[0])


_TOKENS: tuple[Any, ...] = (torch.zeros(2, 5, dtype=torch.int64), {"tokens": BATCH_TIME})
KINDS: dict[str, tuple[type[nn.Module], Any, Any, dict[str, Any]]] = {
    "language": (
        Language,
        torch.zeros(2, 5, dtype=torch.int64),
        {"tokens": BATCH_TIME},
        {"input": "tokens", "output": "output"},
    ),
    "sampled": (
        Language,
        torch.zeros(2, 5, dtype=torch.int64),
        {"tokens": BATCH_TIME},
        {"input": "tokens", "output": "output", "choose": "sample", "top_k": 4, "stop_token": [2, 8], "pad": 9},
    ),
    "time first": (
        TimeFirst,
        torch.zeros(5, 2, dtype=torch.int32),
        {"tokens": {0: "time", 1: "batch"}},
        {"input": "tokens", "output": "output", "stop_token": 5},
    ),
    "peephole": (Peephole, *_TOKENS, {"input": "tokens", "output": "output", "stop_token": 4}),
    "convolved": (Convolved, *_TOKENS, {"input": "tokens", "output": "output", "stop_token": [4, 6]}),
    "forecast": (Forecast, torch.zeros(2, 5, 2), {"x": BATCH_TIME}, {"input": "x", "output": "output"}),
    "attending": (
        Attending,
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 12), torch.zeros(2, 3, 4)),
        {"token": {0: "batch"}, "h": {0: "batch"}, "features": {0: "batch", 1: "places"}},
        {"input": "token", "output": "logits", "stop_output": "end"},
    ),
    "view": (Rows, *_TOKENS, {"input": "tokens", "output": "output", "stop_token": 3}),
    "view, time first": (
        RowsTimeFirst,
        torch.zeros(5, 2, dtype=torch.int64),
        {"tokens": {0: "time", 1: "batch"}},
        {"input": "tokens", "output": "output"},
    ),
    "hand-written": (
        HandWritten,
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, 12)),
        {"tokens": {0: "batch"}, "mean": {0: "batch"}},
        {"input": "tokens", "output": "output.0", "states": {"mean": "output.1"}},
    ),
}


@cache
def module(kind: str) -> nn.Module:
    """The module of a kind, with weights that are large enough for many different tokens."""
    torch.manual_seed(sorted(KINDS).index(kind))
    made = KINDS[kind][0]().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.5)
    return made


def written(kind: str, folder: Path) -> lstm_onnx.ExportResult:
    """The generating file of a kind."""
    _, example, shapes, generate = KINDS[kind]
    path = folder / f"{kind}.onnx"
    return lstm_onnx.export(module(kind), path, example_inputs=example, dynamic_shapes=shapes, generate=generate)
