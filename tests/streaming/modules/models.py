"""Modules of the kinds that people stream, each with whether it can be, and the look-ahead that it has.

All take (batch, time, features) and hold a recurrent layer.  `MODELS` has, by name, what makes one; `REFUSED` those
that need the whole sequence, with a part of the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everyone writes it

from .stages import (
    Apply,
    Bidirectional,
    Causal,
    Chain,
    LastStep,
    LearnedStart,
    Positions,
    Rnn,
    Sliced,
    TwoInputs,
    TwoOutputs,
    assigned,
    attention,
    bands,
    before,
    completed,
    conformer_convolution,
    deltas,
    dual_path,
    gated,
    inverse,
    joined,
    lookahead,
    memory,
    moving_average,
    over_frequency,
    per_step,
    reflected,
    residual,
    respectrum,
    running_norm,
    segments,
    separable,
    shifted,
    shuffled,
    spectrum,
    spliced,
    squeeze_per_step,
    stacked,
    u_shape,
    wavenet,
    windows,
    within_fours,
    written,
)

FEATURES = 4
Make = Callable[[], nn.Module]


def dual() -> tuple[nn.GRU, nn.GRU]:
    """The layers of `dual_path`."""
    return nn.GRU(1, 2, batch_first=True, bidirectional=True), nn.GRU(4, 1, batch_first=True)


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
    "pairs, an odd last step left out": (
        lambda: Chain(
            Rnn(4, 4),
            Apply(lambda x: x[..., : x.shape[2] // 2 * 2].transpose(1, 2).reshape(x.shape[0], -1, 8).transpose(1, 2)),
            Rnn(8, 3, nn.GRU),
        ),
        0,
    ),
    "a slice of positions": (lambda: Chain(Sliced(4, 80), Causal(4, 4, 3), Rnn(4, 3)), 0),
    "channels as steps": (
        lambda: Chain(
            Rnn(4, 8), Apply(lambda x: x.transpose(1, 2).reshape(x.shape[0], -1, 4).transpose(1, 2)), Causal(4, 3, 3)
        ),
        0,
    ),
    "repeated by repeat_interleave": (
        lambda: Chain(Rnn(4, 4), Apply(lambda x: x.repeat_interleave(3, dim=2)), Causal(4, 3, 4), Rnn(3, 3)),
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
    "average pooling without its padding": (
        lambda: Chain(nn.AvgPool1d(5, 2, 2, ceil_mode=True, count_include_pad=False), Rnn(4, 4)),
        2,
    ),
    "linear interpolation": (
        lambda: Chain(
            residual(nn.Conv1d(4, 4, 4, 2, 1), Rnn(4, 4), nn.Upsample(scale_factor=2, mode="linear")), Rnn(4, 4)
        ),
        4,
    ),
    "the first step taken off": (lambda: Chain(Apply(lambda x: x - x[:, :, :1]), Causal(4, 4, 3), Rnn(4, 4)), 0),
    "completed and cut": (lambda: Chain(Apply(completed, nn.Conv1d(4, 4, 4, 4), Rnn(4, 4), inverse(4, 4, 4, 4))), 3),
    "reflected up to whole strides": (
        lambda: Chain(Apply(reflected, nn.Conv1d(4, 4, 6, 3)), Rnn(4, 4), nn.Conv1d(4, 4, 1)),
        1,
    ),
    "a layer over segments of steps": (
        lambda: Chain(Apply(within_fours, nn.GRU(4, 4, batch_first=True)), Rnn(4, 3)),
        0,
    ),
    "within windows of steps": (lambda: Chain(Apply(windows, nn.GRU(4, 4, batch_first=True))), 0),
    "frames": (lambda: Chain(Apply(lambda x: x.unfold(2, 6, 3).transpose(2, 3).flatten(1, 2)), Rnn(24, 4)), 0),
    "frames of a padded image": (
        lambda: Chain(Apply(lambda x: F.unfold(F.pad(x, (2, 0))[:, None], (4, 3))), Rnn(12, 4)),
        0,
    ),
    "frames and their inverse spectra": (lambda: Chain(Apply(respectrum), Rnn(8, 4)), 0),
    "a spectrum": (lambda: Chain(Apply(spectrum), Rnn(20, 4)), 0),
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
    "over frequency and over time": (lambda: Chain(Causal(4, 4, 3), Apply(dual_path, *dual()), Rnn(4, 3)), 0),
    "over frequency and over time, a step ahead": (
        lambda: Chain(nn.Conv1d(4, 4, 3, padding=1), Apply(dual_path, *dual()), nn.Conv1d(4, 3, 2, 2)),
        1,
    ),
    "within segments and over them": (
        lambda: Chain(
            Causal(4, 4, 3),
            Apply(segments, nn.GRU(4, 4, batch_first=True), nn.GRU(4, 4, batch_first=True)),
            Rnn(4, 3),
        ),
        3,
    ),
    # differences, sums, shifts, positions
    "deltas": (lambda: Chain(Apply(deltas), Rnn(12, 4)), 0),
    "spliced": (lambda: Chain(Apply(spliced), Rnn(20, 4)), 2),
    "steps assigned to others": (lambda: Chain(Apply(assigned), Rnn(4, 4)), 0),
    "temporal shift": (lambda: Chain(Apply(shifted), Causal(4, 4, 2), Rnn(4, 4)), 0),
    "a running norm": (lambda: Chain(Apply(running_norm), Causal(4, 4, 3), Rnn(4, 4)), 0),
    "the first and the last step repeated": (lambda: Chain(Apply(moving_average), Rnn(4, 4)), 2),
    "positions": (Positions, 0),
    "one step as two, by a reshape": (lambda: Chain(Rnn(4, 6), Apply(shuffled), Causal(3, 4, 3)), 0),
    # inputs, outputs, states
    "two inputs": (TwoInputs, 1),
    "two outputs": (TwoOutputs, 2),
    "channels as rows, a step ahead": (lambda: Chain(nn.Conv1d(4, 4, 3, padding=1), Apply(bands, Rnn(2, 3))), 1),
    "channels written in place": (
        lambda: Chain(Apply(written, Causal(4, 2, 3), nn.Conv1d(4, 2, 3, padding=1)), Rnn(4, 3)),
        1,
    ),
    "the last step": (LastStep, 0),
    "a learned start": (LearnedStart, 0),
}


class OtherFirstStep(nn.Module):
    """A loop over differences of steps, of which the first is of one step with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], 4)
        results = []
        for t in range(x.shape[1]):
            h = torch.tanh(x[:, t] - x[:, max(t - 1, 0)] + self.own(h))
            results.append(h)
        return torch.stack(results, 1)


REFUSED: dict[str, tuple[Make, str]] = {
    "a loop whose first step differs": (OtherFirstStep, "a loop whose first step differs from the others"),
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
