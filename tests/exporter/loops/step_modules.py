"""Modules whose loops read, write and compute with the number of a step."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

FEATURES, HIDDEN = 3, 4


class Step(nn.Module):
    """A tanh cell; what is done with its result and the number of the step is in `after`."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h, self.cell = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.GRUCell(FEATURES, HIDDEN)
        self.periods = nn.Buffer(torch.tensor([1, 2, 2, 3]))

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)

    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in range(x.shape[1]):
            h = self.after(torch.tanh(self.x(x[:, t]) + self.h(h)), h, t)
            steps.append(h)
        return torch.stack(steps, 1)


class Clockwork(Step):
    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        return torch.where(t % self.periods == 0, h, before)


class PowersAndBounds(Step):
    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        return (h * (h.abs() % (t + 1)) ** t).clamp(max=t).masked_fill(before > 0.5, t) / (t + 1)


class PowersOfTheNumber(Step):
    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        return h / (t + 1) ** (0.5 * self.periods) + 0.1 * before


class FilledWithTheNumber(Step):
    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        return sum([h, 0.1 * torch.full_like(before, t)]) - before.new_full((HIDDEN,), t)


class Window(Step):
    """Three entries of the input at each step, of which those before the first are zeros."""

    def forward(self, x: Tensor) -> Tensor:
        window = deque([torch.zeros(x.shape[0], FEATURES)] * 3, maxlen=3)
        h, steps = self.start(x), []
        for step in x.unbind(1):
            window.append(step)
            h = self.cell(window[0] - window[1] * window[2], h)
            steps.append(h)
        return torch.stack(steps, 1)


class StartsFromTheFirst(Step):
    def forward(self, x: Tensor) -> Tensor:
        mean = x[:, 0]
        steps = [mean]
        for t in range(1, x.shape[1]):
            mean = 0.3 * x[:, t] + 0.7 * mean
            steps.append(mean)
        return self.x(torch.stack(steps, 1))


class TwoTensorsFilled(Step):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states, results = x.new_empty(x.shape[0], x.shape[1], HIDDEN), x.new_zeros(x.shape[0], x.shape[1], HIDDEN)
        h = self.start(x)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            states[:, t], results[:, t] = h, self.h(h)
        return states, results


class FillsBeforeItUpdates(Step):
    """The state that the last step makes is for a step that never comes, and the first one is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        results, h = x.new_empty(x.shape[0], x.shape[1], HIDDEN), x.new_full((x.shape[0], HIDDEN), -0.5)
        for t in range(x.shape[1]):
            results[:, t] = torch.maximum(h, self.x(x[:, t]))
            h = torch.maximum(h * 0.9, self.h(h) + self.x(x[:, t]))
        return results


class AfterTheFirstTwo(Step):
    """Of three steps one is left, which is all that its tensors hold; of two none."""

    def forward(self, x: Tensor) -> Tensor:
        z, h = self.x(x[:, 2:]), self.start(x)
        results = torch.zeros_like(z)
        for t in range(z.shape[1]):
            h = torch.minimum(h * 0.5, z[:, t]) + 0.1
            results[:, t] = h
        return results


class JoinedInEachWay(Step):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h, steps = self.start(x), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            steps.append(h)
        rows = [h[:, None] for h in steps]
        joined = torch.concat(rows, 1), torch.concatenate(rows, dim=-2), torch.hstack(steps), torch.vstack(steps)
        firsts = [h[:, 0] for h in steps]
        return *joined, torch.dstack(steps), torch.column_stack(firsts), torch.vstack(firsts), torch.row_stack(rows)


class BothWaysJoined(Step):
    def forward(self, x: Tensor) -> Tensor:
        steps = list(x.unbind(1))
        forward, backward = [self.start(x)], [self.start(x)]
        for one, other in zip(steps, reversed(steps), strict=True):
            forward.append(self.cell(one, forward[-1]))
            backward.append(self.cell(other, backward[-1]))
        pairs = zip(forward[1:], reversed(backward[1:]), strict=True)
        return torch.stack([torch.cat(pair, -1) for pair in pairs], 1)


class FeedsItselfAndFills(Step):
    """The first row stays zero, and the last step's choice is for a step that never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(HIDDEN, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        logits = x.new_zeros(x.shape[0], x.shape[1], HIDDEN)
        h, token = self.start(x), torch.zeros(x.shape[0], dtype=torch.int64)
        for t in range(1, x.shape[1]):
            h = self.cell(self.embedding(token), h)
            logits[:, t] = self.h(h)
            token = logits[:, t].argmax(1)
        return logits


class Pointer(Step):
    """Each step chooses one of the entries that no step before it chose."""

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        keys, h, chosen = self.x(x), self.start(x), x.new_zeros(batch, time, dtype=torch.bool)
        entry, steps = x.mean(1), []
        for _ in range(time):
            h = self.cell(entry, h)
            scores = torch.tanh(keys + self.h(h).unsqueeze(1)).sum(-1).masked_fill(chosen, -1e9)
            index = scores.argmax(1)
            chosen = chosen | nn.functional.one_hot(index, time).bool()
            entry = x.gather(1, index.view(batch, 1, 1).expand(batch, 1, FEATURES)).squeeze(1)
            steps.append(index)
        return torch.stack(steps, 1)


class SeesItsLastWeights(Step):
    """Attention to entries next to those of the step before; the first step's are zeros, and get an axis as well."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv1d(1, HIDDEN, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weights, seen, h, steps = x.new_zeros(x.shape[:2]), x.new_zeros(x.shape[0], FEATURES), self.start(x), []
        for step in x.unbind(1):
            h = self.cell(step + seen, h)
            keys = self.h(h)[:, None] + self.near(weights[:, None]).transpose(1, 2)
            weights = torch.tanh(keys + self.x(x)).sum(-1).softmax(-1)
            seen = (weights[:, None] @ x)[:, 0]
            steps.append(seen)
        return torch.stack(steps, 1)


class CountsFromTheEnd(Step):
    """Backwards, and each step compares with how many are left."""

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for t in reversed(range(x.shape[1])):
            h = torch.where(t < self.periods, h, torch.tanh(self.x(x[:, t]) + self.h(h))) / (x.shape[1] - t)
            steps.append(h)
        return torch.stack(steps[::-1], 1)


class SplitAsNumpyDoes(Step):
    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for step in torch.tensor_split(x, x.shape[1], dim=1):
            h = self.cell(step[:, 0], h)
            steps.append(h)
        return torch.stack(steps, 1)


class ClampsItsWeights(Step):
    """Each call keeps the weights of an independent RNN within their bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(HIDDEN) * 3)

    def start(self, x: Tensor) -> Tensor:
        self.u.data.clamp_(-1, 1)
        return super().start(x)

    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:  # noqa: ARG002
        return torch.tanh(h + before * self.u)


class FillsWithTheFirst(Step):
    """A loop that only fills a tensor, with the same value in each step."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, steps, first = self.start(x), [], x.new_empty(x.shape[0], x.shape[1], HIDDEN)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            steps.append(h)
        for t in range(x.shape[1]):
            first[:, t] = steps[0]
        return torch.stack(steps, 1), first


class ScaledByDoubles(Step):
    """One number of float64 in each step leaves float32 what it is; a tensor of all of them would not."""

    def forward(self, x: Tensor) -> Tensor:
        times = x[0, :, 0].double()
        return torch.stack([torch.relu(x[:, t] * times[t]) for t in range(x.shape[1])], 1)


class JoinedInTurns(Step):
    """Of each step two values of different sizes."""

    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for step in x.unbind(1):
            h = self.cell(step, h)
            steps += [h, step]
        return torch.cat(steps, 1)


class TimeLast(Step):
    def forward(self, x: Tensor) -> Tensor:
        h, steps, channels = self.start(x), [], x.transpose(1, 2)
        for t in range(channels.shape[-1]):
            h = self.cell(channels[..., t], h)
            steps.append(h)
        return torch.stack(steps, -1)


class AddsTheStateBefore(Step):
    def forward(self, x: Tensor) -> Tensor:
        h, steps = self.start(x), []
        for step in x.unbind(1):
            before, h = h, self.cell(step, h)
            steps.append(h + before)
        return torch.stack(steps, 1)


class SubtractsTheOutputBefore(Step):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        state, before, steps = None, self.start(x)[:, None], []
        for step in x.split(1, 1):
            out, state = self.gru(step, state)
            steps.append(out - before)
            before = out
        return torch.cat(steps, 1)
