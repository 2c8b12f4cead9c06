"""Modules of the kinds that people stream, each with whether it can be, and the look-ahead that it has.

All take (batch, time, features) and hold a recurrent layer.  `MODELS` has, by name, what makes one; `REFUSED` those
that need the whole sequence, with a part of the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

FEATURES = 4
Make = Callable[[], nn.Module]


class Causal(nn.Conv1d):
    """A convolution that is padded at its start alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reach = (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]
        return super().forward(F.pad(x, (reach, 0)))


class Rnn(nn.Module):
    """A recurrent layer over (batch, channels, time)."""

    def __init__(self, inputs: int, hidden: int, kind: type[nn.RNNBase] = nn.LSTM, **options: object) -> None:
        super().__init__()
        self.rnn = kind(inputs, hidden, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x.transpose(1, 2))[0].transpose(1, 2)


class Chain(nn.Module):
    """Stages over (batch, channels, time), from and to (batch, time, features)."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x.transpose(1, 2)).transpose(1, 2)


class Apply(nn.Module):
    """A function as a stage, with the modules that it uses."""

    def __init__(self, function: Callable[..., torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, *self.parts)


def residual(*stages: nn.Module) -> nn.Module:
    return Apply(lambda x, inner: x + inner(x), nn.Sequential(*stages))


def joined(*branches: nn.Module) -> nn.Module:
    return Apply(lambda x, *parts: torch.cat([part(x) for part in parts], 1), *branches)


def gated(channels: int, kernel: int, dilation: int = 1) -> nn.Module:
    def run(x: torch.Tensor, values: nn.Module, gates: nn.Module) -> torch.Tensor:
        return x + torch.tanh(values(x)) * torch.sigmoid(gates(x))

    return Apply(run, *(Causal(channels, channels, kernel, dilation=dilation) for _ in range(2)))


def per_step(module: nn.Module) -> nn.Module:
    """A module over the features of each step."""
    return Apply(lambda x, inner: inner(x.transpose(1, 2)).transpose(1, 2), module)


def separable(channels: int, kernel: int, *, causal: bool = True) -> nn.Module:
    depth = (
        Causal(channels, channels, kernel, groups=channels)
        if causal
        else nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
    )
    return nn.Sequential(depth, nn.BatchNorm1d(channels), nn.SiLU(), nn.Conv1d(channels, channels, 1))


def conformer_convolution() -> nn.Module:
    def run(x: torch.Tensor, first: nn.Module, depth: nn.Module, last: nn.Module) -> torch.Tensor:
        return x + last(F.silu(depth(F.glu(first(x), dim=1))))

    return Apply(run, nn.Conv1d(4, 8, 1), Causal(4, 4, 7, groups=4), nn.Conv1d(4, 4, 1))


def lookahead(channels: int, steps: int) -> nn.Module:
    """DeepSpeech 2's row convolution: later steps alone."""
    conv = nn.Conv1d(channels, channels, steps + 1, groups=channels, bias=False)
    return Apply(lambda x, inner: inner(F.pad(x, (0, steps))), conv)


def memory(channels: int, before: int, after: int) -> nn.Module:
    """FSMN's memory block."""
    conv = nn.Conv1d(channels, channels, before + after + 1, groups=channels, bias=False)
    return Apply(lambda x, inner: x + inner(F.pad(x, (before, after))), conv)


def spliced(x: torch.Tensor) -> torch.Tensor:
    """Each step with two before and two after it, as Kaldi splices frames."""
    padded = F.pad(x, (2, 2))
    return torch.cat([padded[:, :, at : padded.shape[2] - 4 + at] for at in range(5)], 1)


def deltas(x: torch.Tensor) -> torch.Tensor:
    """The step, its difference from the one before, and the difference of that."""
    first = x - F.pad(x, (1, 0))[:, :, :-1]
    return torch.cat([x, first, first - F.pad(first, (1, 0))[:, :, :-1]], 1)


def running_norm(x: torch.Tensor) -> torch.Tensor:
    count = torch.arange(1, x.shape[2] + 1, dtype=x.dtype)
    mean = torch.cumsum(x, 2) / count
    power = torch.cumsum(x * x, 2) / count
    return (x - mean) / torch.sqrt(power + 1e-3)


def shifted(x: torch.Tensor) -> torch.Tensor:
    """A temporal shift module's: some channels from the step before."""
    return torch.cat([F.pad(x[:, :2], (1, 0))[:, :, :-1], x[:, 2:]], 1)


def stacked(x: torch.Tensor) -> torch.Tensor:
    """Three steps as one."""
    batch, channels, time = x.shape
    return x.transpose(1, 2).reshape(batch, time // 3, 3 * channels).transpose(1, 2)


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """Each step as two of half of the channels."""
    batch, channels, time = x.shape
    return x.transpose(1, 2).reshape(batch, time * 2, channels // 2).transpose(1, 2)


def u_shape(causal: bool) -> nn.Module:
    def conv(inputs: int, dilation: int) -> nn.Module:
        if causal:
            return Causal(inputs, 4, 3, dilation=dilation)
        return nn.Conv1d(inputs, 4, 3, padding=dilation, dilation=dilation)

    def run(x: torch.Tensor, *parts: nn.Module) -> torch.Tensor:
        kept = []
        for part in parts[:3]:
            kept.append(x)
            x = torch.relu(part(x))
        for part in parts[3:]:
            x = torch.relu(part(torch.cat([x, kept.pop()], 1)))
        return x

    return Apply(run, *(conv(4, 2**n) for n in range(3)), *(conv(8, 1) for _ in range(3)))


def wavenet(layers: int) -> nn.Module:
    def run(x: torch.Tensor, *parts: nn.Module) -> torch.Tensor:
        total = torch.zeros_like(x)
        for values, gates in zip(parts[::2], parts[1::2], strict=True):
            y = torch.tanh(values(x)) * torch.sigmoid(gates(x))
            total, x = total + y, x + y
        return torch.relu(total)

    return Apply(run, *(Causal(4, 4, 2, dilation=2 ** (n // 2)) for n in range(2 * layers)))


def over_frequency(*stages: nn.Module, channels: int, bins: int) -> nn.Module:
    """2-d stages over (batch, channels, time, frequency), of features that are frequencies."""

    def run(x: torch.Tensor, inner: nn.Module) -> torch.Tensor:
        y = inner(x.transpose(1, 2).unsqueeze(1))
        return y.permute(0, 1, 3, 2).flatten(1, 2)

    del channels, bins
    return Apply(run, nn.Sequential(*stages))


def before(steps: int) -> nn.Module:
    """Padding before time, in (batch, channels, time, frequency)."""
    return nn.ConstantPad2d((0, 0, steps, 0), 0.0)


def inverse(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    """A transposed convolution that is cut at its end, so that it needs nothing later."""
    conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride)
    return Apply(lambda x, inner: inner(x)[:, :, : -(kernel - stride)] if kernel > stride else inner(x), conv)


def squeeze_per_step(x: torch.Tensor, first: nn.Module, second: nn.Module) -> torch.Tensor:
    return x * torch.sigmoid(second(torch.relu(first(x))))


class TwoInputs(nn.Module):
    """An echo canceller's: microphone and loudspeaker, of different delays."""

    def __init__(self) -> None:
        super().__init__()
        self.mic, self.ref = nn.Conv1d(4, 3, 3, padding=1), Causal(4, 3, 6)
        self.gru, self.mask = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.mic(x.transpose(1, 2)), self.ref(ref.transpose(1, 2))], 1)
        return x * torch.sigmoid(self.mask(self.gru(both.transpose(1, 2))[0]))


class TwoOutputs(nn.Module):
    """A mask late, and whether there is speech at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.vad, self.late = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 1), nn.Conv1d(5, 4, 5, padding=2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.gru(x)[0]
        return {"mask": torch.sigmoid(self.late(y.transpose(1, 2))).transpose(1, 2), "vad": torch.sigmoid(self.vad(y))}


class LastStep(nn.Module):
    """A wake word's score: of the last step alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.head = Causal(4, 5, 3), nn.GRU(5, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0][:, -1])


class LearnedStart(nn.Module):
    """A GRU that starts from a parameter, after a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = Causal(4, 5, 3), nn.GRU(5, 4, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.gru(y, self.start.expand(1, x.shape[0], 4).contiguous())[0]


class Positions(nn.Module):
    """A sine of the step's number added, then a convolution and an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = Causal(4, 4, 4), nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = torch.arange(x.shape[1], dtype=x.dtype)[:, None] / torch.tensor([1.0, 3.0, 10.0, 30.0])
        return self.lstm(self.conv((x + torch.sin(at)).transpose(1, 2)).transpose(1, 2))[0]


MODELS: dict[str, tuple[Make, int]] = {
    # before, after and between
    "before": (lambda: Chain(Causal(4, 6, 5), nn.ReLU(), Rnn(6, 5)), 0),
    "before, gru of two layers": (lambda: Chain(Causal(4, 6, 3), nn.Tanh(), Rnn(6, 5, nn.GRU, num_layers=2)), 0),
    "after": (lambda: Chain(Rnn(4, 6), nn.Conv1d(6, 3, 5, padding=2)), 2),
    "after, causal": (lambda: Chain(Rnn(4, 6), Causal(6, 3, 4)), 0),
    "between": (lambda: Chain(Rnn(4, 5), Causal(5, 6, 3, dilation=2), Rnn(6, 4, nn.GRU)), 0),
    "around": (lambda: Chain(nn.Conv1d(4, 5, 3, padding=1), Rnn(5, 6), nn.Conv1d(6, 4, 3, padding=1)), 2),
    "relu rnn": (lambda: Chain(Causal(4, 5, 3), Rnn(5, 4, nn.RNN, nonlinearity="relu"), Causal(4, 3, 2)), 0),
    "projected": (lambda: Chain(Causal(4, 5, 3), Rnn(5, 6, proj_size=3), Causal(3, 3, 2)), 0),
    "valid padding": (lambda: Chain(nn.Conv1d(4, 5, 4), Rnn(5, 3)), 0),
    "padding on both sides, cut": (
        lambda: Chain(Apply(lambda x, conv: conv(x)[:, :, :-4], nn.Conv1d(4, 5, 5, padding=4)), Rnn(5, 3)),
        0,
    ),
    "reflect padding": (lambda: Chain(nn.Conv1d(4, 5, 5, padding=2, padding_mode="reflect"), Rnn(5, 3)), 2),
    "replicate padding": (lambda: Chain(nn.Conv1d(4, 5, 5, padding=2, padding_mode="replicate"), Rnn(5, 3)), 2),
    # dilated stacks
    "dilated residuals": (
        lambda: Chain(*(residual(Causal(4, 4, 3, dilation=2**n), nn.ReLU()) for n in range(4)), Rnn(4, 5)),
        0,
    ),
    "gated": (lambda: Chain(*(gated(4, 2, 2**n) for n in range(4)), Rnn(4, 5, nn.GRU)), 0),
    "wavenet": (lambda: Chain(wavenet(4), Rnn(4, 3)), 0),
    "tcn": (
        lambda: Chain(
            *(
                residual(Causal(4, 4, 2, dilation=d), nn.ReLU(), Causal(4, 4, 2, dilation=d), nn.ReLU())
                for d in (1, 2, 4)
            ),
            Rnn(4, 5),
        ),
        0,
    ),
    "dilated, centred": (
        lambda: Chain(*(residual(nn.Conv1d(4, 4, 3, padding=d, dilation=d), nn.ReLU()) for d in (1, 2, 4)), Rnn(4, 5)),
        7,
    ),
    # look-ahead
    **{
        f"look-ahead of {steps}": (lambda steps=steps: Chain(lookahead(4, steps), nn.ReLU(), Rnn(4, 3)), steps)
        for steps in (1, 2, 3, 5, 8, 13, 20)
    },
    "look-ahead after": (lambda: Chain(Rnn(4, 4, nn.GRU), lookahead(4, 10)), 10),
    "memory block": (lambda: Chain(memory(4, 8, 4), nn.ReLU(), memory(4, 3, 0), Rnn(4, 3)), 4),
    "a residual over look-ahead": (lambda: Chain(residual(Rnn(4, 4), nn.Conv1d(4, 4, 7, padding=3))), 3),
    "branches of other delays": (
        lambda: Chain(joined(*(nn.Conv1d(4, 2, k, padding=k // 2) for k in (1, 3, 5, 7))), nn.ReLU(), Rnn(8, 3)),
        3,
    ),
    # strides
    "strided": (lambda: Chain(nn.Conv1d(4, 5, 4, 2), nn.ReLU(), nn.Conv1d(5, 5, 3, 3), Rnn(5, 4)), 0),
    "strided, causal": (lambda: Chain(Causal(4, 5, 4, stride=2), nn.ReLU(), Causal(5, 5, 6, stride=3), Rnn(5, 4)), 0),
    "strided, centred": (lambda: Chain(nn.Conv1d(4, 5, 3, 2, 1), nn.ReLU(), nn.Conv1d(5, 5, 3, 2, 1), Rnn(5, 4)), 1),
    "every third": (lambda: Chain(Causal(4, 5, 3), Apply(lambda x: x[:, :, ::3]), Rnn(5, 4)), 0),
    "three as one": (lambda: Chain(Apply(stacked), Causal(12, 5, 2), Rnn(5, 4, nn.GRU)), 0),
    "repeated": (lambda: Chain(Rnn(4, 4), nn.Upsample(scale_factor=4), Causal(4, 3, 5)), 0),
    "a transposed convolution": (lambda: Chain(Causal(4, 4, 4, stride=2), Rnn(4, 4), inverse(4, 4, 4, 2)), 0),
    "encoder and decoder": (
        lambda: Chain(Causal(4, 6, 8, stride=4), nn.ReLU(), Rnn(6, 6), inverse(6, 4, 8, 4)),
        0,
    ),
    "max pooling": (
        lambda: Chain(Causal(4, 5, 3), Apply(lambda x: F.max_pool2d(x.unsqueeze(2), (1, 2)).squeeze(2)), Rnn(5, 4)),
        0,
    ),
    "average pooling": (lambda: Chain(nn.AvgPool1d(4, 2), Rnn(4, 4)), 0),
    "a moving mean taken off": (
        lambda: Chain(Apply(lambda x, pool: x - pool(F.pad(x, (8, 0))), nn.AvgPool1d(9, 1)), Rnn(4, 4)),
        0,
    ),
    # U-shapes of equal rate
    "u-shape": (lambda: Chain(u_shape(causal=True), Rnn(4, 3)), 0),
    "u-shape, centred": (lambda: Chain(u_shape(causal=False), Rnn(4, 3, nn.GRU)), 10),
    "u-shape around a gru": (
        lambda: Chain(
            Apply(
                lambda x, down, rnn, up: up(torch.cat([rnn(down(x)), x], 1)),
                Causal(4, 5, 3),
                Rnn(5, 5, nn.GRU),
                Causal(9, 4, 3),
            )
        ),
        0,
    ),
    # separable
    "depthwise separable": (lambda: Chain(separable(4, 5), separable(4, 9), Rnn(4, 4)), 0),
    "depthwise separable, centred": (lambda: Chain(separable(4, 5, causal=False), Rnn(4, 4)), 2),
    "conformer's convolution": (lambda: Chain(conformer_convolution(), Rnn(4, 4)), 0),
    "squeeze and excitation of each step": (
        lambda: Chain(Causal(4, 4, 3), Apply(squeeze_per_step, nn.Conv1d(4, 2, 1), nn.Conv1d(2, 4, 1)), Rnn(4, 4)),
        0,
    ),
    "layer norm and prelu": (lambda: Chain(Causal(4, 4, 3), per_step(nn.LayerNorm(4)), nn.PReLU(4), Rnn(4, 4)), 0),
    # two dimensions
    "2-d, causal": (
        lambda: Chain(
            over_frequency(before(2), nn.Conv2d(1, 3, (3, 3), padding=(0, 1)), nn.ELU(), channels=3, bins=4), Rnn(12, 4)
        ),
        0,
    ),
    "2-d, strides in frequency": (
        lambda: Chain(
            over_frequency(
                before(1), nn.Conv2d(1, 3, (2, 3), (1, 2), (0, 1)), nn.BatchNorm2d(3), nn.ReLU(), channels=3, bins=2
            ),
            Rnn(6, 4, nn.GRU),
        ),
        0,
    ),
    "2-d, centred, strides in both": (
        lambda: Chain(
            over_frequency(nn.Conv2d(1, 3, 3, (1, 2), 1), nn.ReLU(), nn.Conv2d(3, 4, 3, (2, 1), 1), channels=4, bins=2),
            Rnn(8, 4),
        ),
        1,
    ),
    "2-d, depthwise": (
        lambda: Chain(
            over_frequency(
                before(4),
                nn.Conv2d(1, 4, (1, 3), padding=(0, 1)),
                nn.Conv2d(4, 4, (3, 1), dilation=(2, 1), groups=4),
                channels=4,
                bins=4,
            ),
            Rnn(16, 4),
        ),
        0,
    ),
    "2-d, pooled frequency": (
        lambda: Chain(
            over_frequency(before(2), nn.Conv2d(1, 3, 3, padding=(0, 1)), nn.MaxPool2d((1, 2)), channels=3, bins=2),
            Rnn(6, 4),
        ),
        0,
    ),
    # differences, sums, shifts, positions
    "deltas": (lambda: Chain(Apply(deltas), Rnn(12, 4)), 0),
    "spliced": (lambda: Chain(Apply(spliced), Rnn(20, 4)), 2),
    "temporal shift": (lambda: Chain(Apply(shifted), Causal(4, 4, 2), Rnn(4, 4)), 0),
    "a running norm": (lambda: Chain(Apply(running_norm), Causal(4, 4, 3), Rnn(4, 4)), 0),
    "positions": (Positions, 0),
    # inputs, outputs, states
    "two inputs": (TwoInputs, 1),
    "two outputs": (TwoOutputs, 2),
    "the last step": (LastStep, 0),
    "a learned start": (LearnedStart, 0),
}


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = Causal(4, 5, 3), nn.LSTM(5, 3, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


def attention(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x.transpose(1, 2) @ x, -1) @ x.transpose(1, 2)


REFUSED: dict[str, tuple[Make, str]] = {
    "a reverse direction": (Bidirectional, "reverse|direction bidirectional"),
    "instance norm": (lambda: Chain(nn.InstanceNorm1d(4), Causal(4, 4, 3), Rnn(4, 3)), "over all steps"),
    "group norm": (lambda: Chain(Causal(4, 4, 3), nn.GroupNorm(1, 4), Rnn(4, 3)), "over all steps|whole sequence"),
    "a mean over time": (
        lambda: Chain(Causal(4, 4, 3), Apply(lambda x: x - x.mean(2, keepdim=True)), Rnn(4, 3)),
        "all steps",
    ),
    "a peak over time": (
        lambda: Chain(Causal(4, 4, 3), Apply(lambda x: x / x.abs().amax(2, keepdim=True)), Rnn(4, 3)),
        "all steps",
    ),
    "squeeze and excitation over time": (
        lambda: Chain(Causal(4, 4, 3), Apply(lambda x: x * torch.sigmoid(F.adaptive_avg_pool1d(x, 1))), Rnn(4, 3)),
        "all steps",
    ),
    "attention": (
        lambda: Chain(Causal(4, 4, 3), Apply(lambda x: attention(x).transpose(1, 2)), Rnn(4, 3)),
        "every step|all steps",
    ),
    "flipped": (lambda: Chain(Causal(4, 4, 3), Apply(lambda x: x.flip(2)), Rnn(4, 3)), "reverses"),
    "one step as two, by a reshape": (
        lambda: Chain(Rnn(4, 6), Apply(shuffled), Causal(3, 4, 3)),
        "time is one axis with others",
    ),
    "softmax over time": (lambda: Chain(Causal(4, 4, 3), Apply(lambda x: torch.softmax(x, 2)), Rnn(4, 3)), "all steps"),
}


def chunkings(steps: int, hop: int, seed: int) -> Sequence[list[int]]:
    """One step at a time, single hops, primes, at once, and at random with chunks of no steps."""
    random = torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    while sum(drawn) < steps:
        drawn.append(min(int(torch.randint(0, 9, (1,), generator=random)), steps - sum(drawn)))
    even = [[min(size, steps - at) for at in range(0, steps, size)] for size in (1, hop, 7, 13, steps)]
    return [*even, drawn]
