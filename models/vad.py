"""The voice-activity model that vad.toml names: a filterbank, causal convolutions, a GRU and a linear layer.

Every convolution is padded at its start alone, so each output depends on what was heard up to its own end and on
nothing after it.
"""

import numpy as np
import torch

RATE, HOP, WINDOW = 16_000, 160, 400  # samples a second, between outputs, under one filter
BANDS, CHANNELS, HIDDEN = 32, 48, 96
LOWEST, HIGHEST = 80.0, 7600.0  # Hz, the centres of the first and of the last band


class VAD(torch.nn.Module):
    """How likely each hundredth of a second of a recording is speech."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = torch.nn.Conv1d(1, 2 * BANDS, WINDOW, stride=HOP, bias=False)
        self.bank.weight = torch.nn.Parameter(filters(), requires_grad=False)
        self.conv1 = torch.nn.Conv1d(BANDS, CHANNELS, 3)
        self.conv2 = torch.nn.Conv1d(CHANNELS, CHANNELS, 3, dilation=2)
        self.gru = torch.nn.GRU(CHANNELS, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, 1)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float32 of 16 kHz, -1 to 1 -> (batch, samples // HOP): the probability of speech."""
        cosine, sine = self.bank(padded(audio.unsqueeze(1), WINDOW - HOP)).chunk(2, dim=1)
        loudness = torch.log(1 + cosine * cosine + sine * sine)  # 0 where there is silence, as the padding is
        y = torch.relu(self.conv1(padded(loudness, 2)))
        y = torch.relu(self.conv2(padded(y, 4)))
        y, _ = self.gru(y.transpose(1, 2))
        return torch.sigmoid(self.head(y)).squeeze(-1)


def padded(x: torch.Tensor, steps: int) -> torch.Tensor:
    """`x`, (batch, channels, time), with `steps` zeros before it."""
    return torch.nn.functional.pad(x, (steps, 0))


def filters() -> torch.Tensor:
    """Cosines, then sines, under a Hann window, their frequencies evenly spaced in mel: (2 * BANDS, 1, WINDOW).

    A sine of amplitude 1 at a band's centre has the power 2**22 there: in the model's log(1 + power), what is more than
    66 dB below full scale is silence.
    """
    mel = np.linspace(*(2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)), BANDS)
    frequency = 700 * (10 ** (mel / 2595) - 1)
    angle = 2 * np.pi * frequency[:, np.newaxis] / RATE * (np.arange(WINDOW) - WINDOW / 2)
    window = 2**12 * np.hanning(WINDOW) / WINDOW * 2
    bank = np.concatenate([np.cos(angle), np.sin(angle)]) * window
    return torch.from_numpy(bank.astype(np.float32)[:, np.newaxis])
