"""Models with loops of their own: gated filters, scans, decoders, spiking neurons."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .base import BATCH_TIME, FEATURES, HIDDEN, Loop, entry, signal, tokens


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
