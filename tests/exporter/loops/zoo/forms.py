"""Forms that a loop is written in, and those that are refused."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import BATCH_TIME, FEATURES, HIDDEN, Loop, entry, signal, tokens


@entry("node")
class Bidirectional(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.there, self.back = nn.GRUCell(FEATURES, HIDDEN), nn.GRUCell(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        there, back = [], []
        h = self.start(x)
        for t in range(x.shape[1]):
            h = self.there(x[:, t], h)
            there.append(h)
        h = self.start(x)
        for t in reversed(range(x.shape[1])):
            h = self.back(x[:, t], h)
            back.append(h)
        return torch.cat([torch.stack(there, 1), torch.stack(back[::-1], 1)], dim=-1)


@entry("node")
class StackedCells(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.LSTMCell(FEATURES, HIDDEN), nn.LSTMCell(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h1 = c1 = h2 = c2 = self.start(x)
        steps = []
        for t in range(x.shape[1]):
            h1, c1 = self.low(x[:, t], (h1, c1))
            h2, c2 = self.high(h1, (h2, c2))
            steps.append(self.out(h2))
        return torch.stack(steps, 1)


@entry("node")
class LayersOneByOne(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.RNNCell(FEATURES, HIDDEN), nn.RNNCell(HIDDEN, HIDDEN)])

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            h, steps = self.start(x), []
            for t in range(x.shape[1]):
                h = cell(x[:, t], h)
                steps.append(h)
            x = torch.stack(steps, dim=1)
        return x


@entry("node")
class FillsByIndex(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        out = torch.zeros(x.shape[0], x.shape[1], HIDDEN)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t, :], (h, c))
            out[:, t, :] = h
        return out


@entry("node")
class InsertsAtFront(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.shape[1] - 1, -1, -1):
            h = self.cell(x[:, t], h)
            steps.insert(0, h)
        return torch.stack(steps, 1)


@entry("scan")
class FirstStepApart(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.x1(x[:, 0]))
        steps = [h]
        for t in range(1, x.shape[1]):
            h = torch.tanh(self.x1(x[:, t]) + self.h1(h))
            steps.append(h)
        return torch.stack(steps, 1)


@entry("node")
class WholeLSTMByStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, HIDDEN, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        state, steps = None, []
        for t in range(x.shape[1]):
            y, state = self.lstm(x[:, t : t + 1], state)
            steps.append(y)
        return torch.cat(steps, 1)


@entry("scan", tokens)
class FeedsItselfBack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.out = nn.Embedding(7, 5), nn.GRUCell(5, HIDDEN), nn.Linear(HIDDEN, 7)

    def forward(self, x: Tensor) -> Tensor:
        h, token, logits = torch.zeros(x.shape[0], HIDDEN), x[:, 0], []
        for _ in range(x.shape[1]):
            h = self.cell(self.embedding(token), h)
            logits.append(self.out(h))
            token = logits[-1].argmax(dim=-1)
        return torch.stack(logits, 1)


@entry("scan", lambda b, t: (*signal(b, t), torch.arange(b) % t + 1), (BATCH_TIME, {0: "batch"}))
class MaskedSteps(Loop):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.shape[1]):
            new = torch.tanh(self.x1(x[:, t]) + self.h1(h))
            alive = (lengths > t).unsqueeze(1).to(x.dtype)
            h = alive * new + (1 - alive) * h
            steps.append(h * alive)
        return torch.stack(steps, 1)


@entry("scan")
class TwoStepsBack(Loop):
    def forward(self, x: Tensor) -> Tensor:
        before, last, steps = self.start(x), self.start(x), []
        for t in range(x.shape[1]):
            new = torch.tanh(self.x1(x[:, t]) + 0.5 * self.h1(last) - 0.1 * before)
            before, last = last, new
            steps.append(new)
        return torch.stack(steps, 1)


@entry("scan")
class HighwayDepth(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.shape[1]):
            for depth in range(2):
                gate = torch.sigmoid(self.h1(h) + (self.x1(x[:, t]) if depth == 0 else 0))
                h = gate * torch.tanh(self.h1(h)) + (1 - gate) * h
            steps.append(h)
        return torch.stack(steps, 1)


@entry("scan")
class RunningSum(Loop):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total, h = 0, self.start(x)
        for t in range(x.shape[1]):
            h = torch.tanh(self.x1(x[:, t]) + self.h1(h))
            total = total + self.out(h)
        return torch.as_tensor(total) / x.shape[1], h


@entry("refused")
class DecaysByStep(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for t in range(x.shape[1]):
            h = h + self.x1(x[:, t]) * 0.5**t
        return h


@entry("refused")
class LooksAtAllBefore(Loop):
    def forward(self, x: Tensor) -> Tensor:
        steps = [self.x1(x[:, 0])]
        for t in range(1, x.shape[1]):
            steps.append(self.x1(x[:, t]) + torch.stack(steps, 1).mean(1))
        return torch.stack(steps, 1)


@entry("refused")
class StopsByValue(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for t in range(x.shape[1]):
            h = torch.tanh(self.x1(x[:, t]) + self.h1(h))
            if h.abs().max() > 0.99:
                break
        return h


@entry("scan")
class CopiedToBeViewed(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h, states, outputs = self.start(x), [], []
        for t in range(x.shape[1]):
            h = torch.tanh(self.x1(x[:, t]) * self.h1(h))
            states.append(h)
            outputs.append(self.h1(h))
        both = torch.stack(states).permute(1, 0, 2) + torch.stack(outputs).permute(1, 0, 2)
        return self.out(both.contiguous().view(-1, both.shape[-1])).view(x.shape[0], x.shape[1], -1)


@entry("refused")
class TruncatesTheSequence(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.most = 20

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for t in range(x.shape[1]):
            if t >= self.most:
                break
            h = torch.tanh(self.x1(x[:, t]) + self.h1(h))
        return h


@entry("refused")
class ClockworkRNN(Loop):
    def forward(self, x: Tensor) -> Tensor:
        fast = slow = self.start(x)
        for t in range(x.shape[1]):
            fast = torch.tanh(self.x1(x[:, t]) + self.h1(fast))
            if t % 3 == 0:
                slow = torch.tanh(self.h1(slow) + fast)
        return fast + slow
