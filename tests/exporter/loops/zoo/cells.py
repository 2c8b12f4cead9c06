"""Recurrent cells: of torch, and written out as LSTMs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import FEATURES, HIDDEN, Loop, entry


@entry("node")
class OverRNNCell(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(FEATURES, HIDDEN, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
            steps.append(h)
        return torch.stack(steps, 1)


@entry("node")
class OverLSTMCell(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = c = self.start(x)
        steps = []
        for x_t in x.unbind(1):
            h, c = self.cell(x_t, (h, c))
            steps.append(h)
        return torch.stack(steps, dim=1), c


@entry("node")
class GrowingTensor(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h, out = self.start(x), x.new_zeros(x.shape[0], 0, HIDDEN)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out = torch.cat([out, h.unsqueeze(1)], dim=1)
        return out


@entry("node")
class GrowingFromFirst(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h, out = self.start(x), None
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            out = h[:, None] if out is None else torch.cat((out, h[:, None]), 1)
        assert out is not None
        return self.out(out)


@entry("node")
class PeepholeLSTM(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.peep = nn.ParameterList(nn.Parameter(torch.randn(HIDDEN)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        steps = []
        for t in range(x.shape[1]):
            i, f, g, o = (self.x4(x[:, t]) + self.h4(h)).chunk(4, -1)
            i = torch.sigmoid(i + self.peep[0] * c)
            f = torch.sigmoid(f + self.peep[1] * c)
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
            steps.append(h)
        return torch.stack(steps, 1)


@entry("scan")
class NormalizedLSTM(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.norm_c = nn.LayerNorm(4 * HIDDEN), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        steps = []
        for t in range(x.shape[1]):
            i, f, g, o = self.norm(self.x4(x[:, t]) + self.h4(h)).chunk(4, dim=1)
            c = torch.sigmoid(f + 1.0) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.norm_c(c))
            steps.append(h)
        return torch.stack(steps, 1)


@entry("scan")
class ZoneoutLSTM(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, HIDDEN)
        self.rate = 0.15

    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        steps = []
        for t in range(x.shape[1]):
            new_h, new_c = self.cell(x[:, t], (h, c))
            h, c = self.rate * h + (1 - self.rate) * new_h, self.rate * c + (1 - self.rate) * new_c
            steps.append(h)
        return torch.stack(steps, 1)
