"""The parts that streaming modules are made of: convolutions, recurrent layers, branches, and steps that meet."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it


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


def moving_average(x: torch.Tensor) -> torch.Tensor:
    """What is left of each step without the mean around it, as forecasters do."""
    return x - F.avg_pool1d(torch.cat([x[:, :, :1].repeat(1, 1, 2), x, x[:, :, -1:].tile(1, 1, 2)], 2), 5, 1)


def shifted(x: torch.Tensor) -> torch.Tensor:
    """A temporal shift module's: some channels from the step before."""
    return torch.cat([F.pad(x[:, :2], (1, 0))[:, :, :-1], x[:, 2:]], 1)


def assigned(x: torch.Tensor) -> torch.Tensor:
    """Each step of a skipping memory's states is the one before, and clamped after the first two."""
    earlier = torch.zeros_like(x)
    earlier[:, :, 1:] = x[:, :, :-1]
    later = (x + earlier)[:, :, 2:]
    later.clamp_(-0.5, 0.5)
    return F.pad(later, (2, 0))


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


def dual_path(x: torch.Tensor, within: nn.GRU, along: nn.GRU) -> torch.Tensor:
    """A layer in both directions over the frequencies of each step, and one over the steps of each frequency."""
    y = x.transpose(1, 2).unsqueeze(3)  # (batch, time, frequency, 1)
    batch, time, bins, _ = y.shape
    start = torch.ones(2, 1, 2).expand(2, batch * time, 2)
    y = within(y.reshape(batch * time, bins, 1), start)[0].reshape(batch, -1, bins, 4) + y
    y = along(y.transpose(1, 2).reshape(batch * bins, time, 4))[0].reshape(batch, bins, -1)
    return torch.nn.functional.layer_norm(y.transpose(1, 2), (bins,)).transpose(1, 2)


def segments(x: torch.Tensor, within: nn.GRU, along: nn.GRU) -> torch.Tensor:
    """A layer within each segment of four steps, and one over the segments, whose states the next layer starts from."""
    batch, channels, time = x.shape
    rows = F.pad(x, (0, -time % 4)).transpose(1, 2).reshape(batch, -1, 4, channels)
    y, h = within(rows.reshape(-1, 4, channels))
    h = along(h.reshape(batch, -1, channels))[0]
    y = within(y, F.pad(h, (0, 0, 1, -1)).reshape(1, -1, channels))[0]
    return y.reshape(batch, -1, channels)[:, :time].transpose(1, 2)


def bands(x: torch.Tensor, inner: nn.Module) -> torch.Tensor:
    """A stage over each channel and the one after it, as rows of one batch."""
    rows = torch.stack([x, x.roll(-1, 1)], 2)
    return inner(rows.flatten(0, 1)).reshape(x.shape[0], -1, x.shape[2])


def written(x: torch.Tensor, *stages: nn.Module) -> torch.Tensor:
    """The channels of several stages, each written into its place of one tensor."""
    y = torch.zeros(x.shape[0], 2 * len(stages), x.shape[2])
    for place, stage in enumerate(stages):
        y[:, 2 * place : 2 * place + 2, :] = stage(x)
    return y


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


class Sliced(nn.Module):
    """As many rows of a table as there are steps, added to (batch, channels, time)."""

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(1, rows, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[:, : x.shape[2]].transpose(1, 2)


class Bidirectional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = Causal(4, 5, 3), nn.LSTM(5, 3, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


def attention(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x.transpose(1, 2) @ x, -1) @ x.transpose(1, 2)


def within_fours(x: torch.Tensor, rnn: nn.Module) -> torch.Tensor:
    """A layer over each four steps, added to them."""
    batch, channels, steps = x.shape
    y = x.transpose(1, 2).reshape(batch * (steps // 4), 4, channels)
    return (y + rnn(y)[0]).reshape(batch, steps, channels).transpose(1, 2)


def windows(x: torch.Tensor, rnn: nn.Module) -> torch.Tensor:
    """The last step of a layer over each step and the three before it."""
    y = F.pad(x, (3, 0)).unfold(2, 4, 1).permute(0, 2, 3, 1)
    return rnn(y.flatten(0, 1))[0][:, -1].unflatten(0, y.shape[:2]).transpose(1, 2)


def completed(x: torch.Tensor, down: nn.Module, rnn: nn.Module, up: nn.Module) -> torch.Tensor:
    """Padded to a multiple of four steps, and cut to the length before it."""
    steps = x.shape[-1]
    return up(rnn(down(F.pad(x, (0, -steps % 4)))))[..., :steps]


def reflected(x: torch.Tensor, conv: nn.Module) -> torch.Tensor:
    """Padded so that the last window is full, with the size computed as a float."""
    steps = x.shape[-1]
    windows = math.ceil((steps - 6 + 3) / 3 + 1)
    return conv(F.pad(x, (3, (windows - 1) * 3 + 3 - steps), mode="reflect"))


def spectrum(x: torch.Tensor) -> torch.Tensor:
    """Magnitudes of windows of eight steps, every four, of each channel."""
    parts = [torch.stft(x[:, at], 8, 4, window=torch.hann_window(8), center=False, return_complex=True).abs()
             for at in range(x.shape[1])]  # fmt: skip
    return torch.cat(parts, 1)


def respectrum(x: torch.Tensor) -> torch.Tensor:
    """Windows of eight steps, every four, of the first channel, without the sign of their spectra."""
    spectra = torch.fft.rfft(x[:, 0].unfold(1, 8, 4) * torch.hann_window(8))
    return torch.fft.irfft(torch.complex(spectra.real.abs(), spectra.imag.abs()), n=8).transpose(1, 2)
