"""Modules with Python loops over time, of the kinds that public code has: recurrent cells, decoders, filters, scans.

Each has what becomes of it: "node" (recurrent operators alone), "scan", or "refused".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

FEATURES, HIDDEN = 3, 4
BATCH_TIME = {0: "batch", 1: "time"}


def signal(batch: int, time: int) -> tuple[Tensor, ...]:
    return (torch.randn((batch, time, FEATURES), generator=torch.Generator().manual_seed(10 * batch + time)),)


def tokens(batch: int, time: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(10 * batch + time)
    return (torch.randint(0, 7, (batch, time), generator=generator),)


@dataclass(frozen=True)
class Entry:
    kind: type[nn.Module]
    becomes: str
    inputs: Callable[[int, int], tuple[Tensor, ...]] = signal
    axes: Sequence[dict[int, str]] = (BATCH_TIME,)


ZOO: dict[str, Entry] = {}


def entry(becomes: str, inputs: Any = signal, axes: Sequence[dict[int, str]] = (BATCH_TIME,)) -> Any:
    def keep(kind: type[nn.Module]) -> type[nn.Module]:
        ZOO[kind.__name__] = Entry(kind, becomes, inputs, axes)
        return kind

    return keep


class Loop(nn.Module):
    """Parts that most of the modules use."""

    def __init__(self) -> None:
        super().__init__()
        self.x4, self.h4 = nn.Linear(FEATURES, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN)
        self.x1, self.h1 = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.out = nn.Linear(HIDDEN, 2)

    @staticmethod
    def start(x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)


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


@entry("scan")
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


@entry("scan")
class MinimalGRU(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.shape[1]):
            z, candidate, _, _ = self.x4(x[:, t]).chunk(4, -1)
            z = torch.sigmoid(z)
            h = (1 - z) * h + z * candidate
            steps.append(h)
        return torch.stack(steps, 1)


@entry("scan")
class ForgetPooling(Loop):
    def forward(self, x: Tensor) -> Tensor:
        z, f, o, _ = self.x4(x).chunk(4, -1)
        z, f, o = torch.tanh(z), torch.sigmoid(f), torch.sigmoid(o)
        c, steps = self.start(x), []
        for t in range(x.shape[1]):
            c = f[:, t] * c + (1 - f[:, t]) * z[:, t]
            steps.append(o[:, t] * c)
        return torch.stack(steps, 1)


@entry("scan")
class SelectiveScan(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(-torch.rand(HIDDEN, 2) - 0.1)
        self.b, self.c, self.delta = nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, 2), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        u = self.x1(x)
        delta, b, c = F.softplus(self.delta(u)), self.b(u), self.c(u)
        state = x.new_zeros(x.shape[0], HIDDEN, 2)
        steps = []
        for t in range(x.shape[1]):
            step = delta[:, t].unsqueeze(-1)
            state = torch.exp(step * self.decay) * state + step * b[:, t].unsqueeze(1) * u[:, t].unsqueeze(-1)
            steps.append((state * c[:, t].unsqueeze(1)).sum(-1))
        return self.out(torch.stack(steps, dim=1))


@entry("scan", lambda b, t: (torch.randn((b, t, 2, 4, 4), generator=torch.Generator().manual_seed(b + t)),))
class ConvolutionalLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 + 2, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _, rows, columns = x.shape
        h, c, steps = x.new_zeros(b, 2, rows, columns), x.new_zeros(b, 2, rows, columns), []
        for i in range(t):
            gates = self.conv(torch.cat([x[:, i], h], dim=1))
            a, f, o, g = torch.split(gates, 2, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(a) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            steps.append(h)
        return torch.stack(steps, dim=1)


@entry("scan", lambda b, t: (*signal(b, t), *tokens(b, t)), (BATCH_TIME, {0: "batch", 1: "target"}))
class TutorialSeq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.embedding, self.cell = nn.Embedding(7, 5), nn.GRUCell(5 + HIDDEN, HIDDEN)
        self.wa, self.ua, self.va = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 1)
        self.out = nn.Linear(HIDDEN, 7)

    def attend(self, h: Tensor, memory: Tensor) -> Tensor:
        scores = self.va(torch.tanh(self.wa(h).unsqueeze(1) + self.ua(memory))).squeeze(2)
        return torch.bmm(F.softmax(scores, -1).unsqueeze(1), memory).squeeze(1)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        memory, h = self.encoder(x)
        h, logits = h.squeeze(0), []
        for i in range(target.size(1)):
            word = self.embedding(target[:, i])
            h = self.cell(torch.cat((word, self.attend(h, memory)), dim=1), h)
            logits.append(self.out(h).unsqueeze(1))
        return torch.cat(logits, dim=1)


@entry(
    "scan",
    lambda b, t: (torch.randn((b, 5, HIDDEN), generator=torch.Generator().manual_seed(b)), *tokens(b, t)),
    ({0: "batch"}, BATCH_TIME),
)
class CaptionDecoder(nn.Module):
    """Show, attend and tell: over the words of a caption, with attention to the parts of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(7, 3), nn.LSTMCell(3 + HIDDEN, HIDDEN)
        self.h0, self.c0 = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.image, self.hidden, self.full = nn.Linear(HIDDEN, 5), nn.Linear(HIDDEN, 5), nn.Linear(5, 1)
        self.gate, self.out, self.dropout = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, 7), nn.Dropout(0.5)

    def forward(self, image: Tensor, caption: Tensor) -> tuple[Tensor, Tensor]:
        words, mean = self.embedding(caption), image.mean(dim=1)
        h, c = self.h0(mean), self.c0(mean)
        predictions, alphas = [], []
        for t in range(caption.size(1)):
            alpha = torch.softmax(self.full(F.relu(self.image(image) + self.hidden(h).unsqueeze(1))).squeeze(2), 1)
            seen = torch.sigmoid(self.gate(h)) * (image * alpha.unsqueeze(2)).sum(dim=1)
            h, c = self.cell(torch.cat([words[:, t, :], seen], dim=1), (h, c))
            predictions.append(self.out(self.dropout(h)))
            alphas.append(alpha)
        return torch.stack(predictions, 1), torch.stack(alphas, 1)


@entry("scan")
class CoupledForget(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h = c = self.start(x)
        steps: list[Tensor] = []
        for t in range(x.shape[1]):
            f, g, o, _ = (self.x4(x[:, t]) + self.h4(h)).split(HIDDEN, dim=1)
            f = f.sigmoid()
            c = f * c + (1 - f) * g.tanh()
            h = o.sigmoid() * c.tanh()
            steps += [h]
        return torch.stack(steps).transpose(0, 1)


@entry("node")
class LSTMInOneMatrix(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(FEATURES + HIDDEN, 4 * HIDDEN)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = c = self.start(x)
        steps = []
        for t in range(x.shape[1]):
            f, i, o, g = torch.chunk(self.gates(torch.cat((x[:, t], h), dim=-1)), 4, dim=-1)
            c = torch.mul(c, torch.sigmoid(f)) + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            steps.append(h)
        return torch.stack(steps, 1), (h, c)


@entry("scan")
class LightGRU(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        w = self.x4(x)[..., : 2 * HIDDEN]
        w = self.norm(w.flatten(0, 1)).view(x.shape[0], x.shape[1], 2 * HIDDEN)
        h, steps = self.start(x), []
        for k in range(w.shape[1]):
            a, z = (w[:, k] + self.h4(h)[:, : 2 * HIDDEN]).chunk(2, 1)
            z = torch.sigmoid(z)
            h = z * h + (1 - z) * torch.relu(a)
            steps.append(h)
        return torch.stack(steps, dim=1)


@entry("scan")
class SimpleRecurrentUnit(Loop):
    def forward(self, x: Tensor) -> Tensor:
        u = self.x4(x)
        c, steps = self.start(x), []
        for t in range(x.size(1)):
            x_t, f, r, skip = u[:, t].chunk(4, -1)
            f, r = f.sigmoid(), r.sigmoid()
            c = f * c + (1 - f) * x_t
            steps.append(r * c.tanh() + (1 - r) * skip)
        return torch.stack(steps, 1)


@entry("scan")
class IndependentRNN(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.rand(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for x_t in torch.unbind(self.x1(x), dim=1):
            h = F.relu(x_t + self.own * h)
            steps.append(h)
        return torch.stack(steps, 1)


@entry("scan")
class LeakyIntegrator(Loop):
    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.shape[1]):
            h = h + 0.2 * (-h + torch.tanh(self.x1(x[:, t]) + self.h1(h)))
            steps.append(h)
        return torch.stack(steps, 1)


@entry("scan")
class SpikingNeurons(Loop):
    def forward(self, x: Tensor) -> Tensor:
        membrane, spikes = self.start(x), []
        for t in range(x.shape[1]):
            membrane = 0.9 * membrane + self.x1(x[:, t])
            spike = (membrane > 0.5).float()
            membrane = membrane - 0.5 * spike
            spikes.append(spike)
        return torch.stack(spikes, 1)


@entry("scan")
class ExponentialAverage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        average = x[:, 0]
        steps = [average]
        for t in range(1, x.shape[1]):
            average = self.weight * x[:, t] + (1 - self.weight) * average
            steps.append(average)
        return torch.stack(steps, 1)


@entry("scan")
class LinearAttention(Loop):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v, _ = self.x4(x).chunk(4, -1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory, norm = x.new_zeros(x.shape[0], HIDDEN, HIDDEN), self.start(x)
        steps = []
        for t in range(x.shape[1]):
            memory = memory + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(1)
            norm = norm + k[:, t]
            y = torch.matmul(q[:, t].unsqueeze(1), memory).squeeze(1)
            steps.append(y / ((q[:, t] * norm).sum(-1, keepdim=True) + 1e-6))
        return torch.stack(steps, 1)


@entry("scan")
class DeltaRule(Loop):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v, beta = self.x4(x).chunk(4, -1)
        k, beta = F.normalize(k, dim=-1), beta.sigmoid()
        memory, steps = x.new_zeros(x.shape[0], HIDDEN, HIDDEN), []
        for t in range(x.shape[1]):
            old = torch.einsum("bij,bj->bi", memory, k[:, t])
            memory = memory + torch.einsum("bi,bj->bij", beta[:, t] * (v[:, t] - old), k[:, t])
            steps.append(torch.einsum("bij,bj->bi", memory, q[:, t]))
        return torch.stack(steps, 1)


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
