"""Models of sound and of pictures: convolutions under the LSTM."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import BATCH_TIME, Architecture, Draw, Inputs, seeded, signal

BINS = 8


class CTCModel(nn.Module):
    """Convolution over time at full rate, BiLSTM, and log probabilities time first, as CTC's loss takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(BINS, 12, kernel_size=3, padding=1)
        self.rnn = nn.LSTM(12, 10, num_layers=2, bidirectional=True)
        self.head = nn.Linear(20, 7)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.relu(self.conv(frames.transpose(1, 2)))
        out, _ = self.rnn(x.permute(2, 0, 1))
        return F.log_softmax(self.head(out), dim=2)


class HalfRateModel(nn.Module):
    """A front-end of stride 2: the output has half of the steps, rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(BINS, 10, 3, stride=2, padding=1), nn.GELU())
        self.lstm = nn.LSTM(10, 12, batch_first=True)
        self.head = nn.Linear(12, 6)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.front(frames.mT).mT
        return self.head(self.lstm(x)[0])


class SpectrogramModel(nn.Module):
    """Two-dimensional convolution over time and frequency without padding, which takes three frames at least."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, kernel_size=3, stride=(2, 2))
        self.norm = nn.BatchNorm2d(4)
        self.lstm = nn.LSTM(4 * 3, 9, bidirectional=True, batch_first=True)
        self.head = nn.Linear(18, 5)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = F.hardtanh(self.norm(self.conv(spectrogram.unsqueeze(1))), 0.0, 20.0)
        batch, channels, time, bins = x.size()
        x = x.transpose(1, 2).contiguous().view(batch, time, channels * bins)
        out, _ = self.lstm(x)
        return self.head(out)


class CausalModel(nn.Module):
    """Padding on the left alone, so that no frame sees a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(BINS, 9, kernel_size=4)
        self.lstm = nn.LSTM(9, 11, batch_first=True)
        self.head = nn.Linear(11, 1)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.pad(frames.transpose(1, 2), (3, 0))
        out, _ = self.lstm(torch.tanh(self.conv(x)).transpose(1, 2))
        return torch.sigmoid(self.head(out)).squeeze(-1)


class PyramidEncoder(nn.Module):
    """Neighbouring frames are joined in pairs between two BiLSTMs; an odd last frame is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.LSTM(BINS, 5, bidirectional=True, batch_first=True)
        self.high = nn.LSTM(20, 6, bidirectional=True, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        x, _ = self.low(frames)
        pairs = x.size(1) // 2
        x = x[:, : 2 * pairs].reshape(x.size(0), pairs, 2 * x.size(2))
        return self.high(x)[0]


class FrameClassifier(nn.Module):
    """A small convolutional network on each picture of a clip, an LSTM over what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.lstm = nn.LSTM(16, 10, batch_first=True)
        self.fc = nn.Linear(10, 4)

    def forward(self, clip: Tensor) -> Tensor:
        batch, time = clip.shape[:2]
        seen = self.see(clip.flatten(0, 1)).view(batch, time, -1)
        _, (hidden, _) = self.lstm(seen)
        return self.fc(hidden.squeeze(0))


class LineReader(nn.Module):
    """Text recognition: the columns of a picture of a line are the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(4, 6, (4, 1)),
            nn.ReLU(),
        )
        self.rnn = nn.LSTM(6, 8, bidirectional=True)
        self.head = nn.Linear(16, 9)

    def forward(self, image: Tensor) -> Tensor:
        features = self.cnn(image).squeeze(2).permute(2, 0, 1)
        out, _ = self.rnn(features)
        return self.head(out).log_softmax(2)


class KeywordSpotter(nn.Module):
    """A projected LSTM of two layers; the largest score over time says whether a word was there."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BINS, 14, num_layers=2, proj_size=6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, frames: Tensor) -> Tensor:
        out, _ = self.lstm(frames)
        return self.head(out).max(dim=1).values


class TwoWayProjection(nn.Module):
    """A projected BiLSTM, as in large acoustic models."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BINS, 12, proj_size=5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 6)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        out, (hidden, _) = self.lstm(frames)
        return self.head(out), torch.cat([hidden[0], hidden[1]], dim=-1)


class SpeakerEmbedding(nn.Module):
    """A vector of unit length for a voice, from plain and projected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.LSTM(BINS, 10, batch_first=True)
        self.projected = nn.LSTM(10, 12, num_layers=2, proj_size=7, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        x, _ = self.plain(frames)
        x, _ = self.projected(x)
        return F.normalize(x.mean(dim=1), p=2, dim=1)


def _settled(make: type[nn.Module]) -> nn.Module:
    """A model whose batch norms have seen data: their statistics are not those of a new module."""
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features)
            part.running_var = torch.rand(part.num_features) + 0.5
    return module


def _clip(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(batch, time, 3, 6, 5),)


def _line(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(batch, 1, BINS, time),)


FRAMES = {"frames": BATCH_TIME}

ARCHITECTURES = (
    Architecture("ctc_acoustic", seeded(CTCModel), signal(BINS), FRAMES, 2),
    Architecture("half_rate_acoustic", seeded(HalfRateModel), signal(BINS), FRAMES, 1),
    Architecture(
        "spectrogram_acoustic",
        seeded(lambda: _settled(SpectrogramModel)),
        signal(BINS),
        {"spectrogram": BATCH_TIME},
        1,
        min_time=3,
    ),
    Architecture("causal_acoustic", seeded(CausalModel), signal(BINS), FRAMES, 1),
    Architecture("pyramid_encoder", seeded(PyramidEncoder), signal(BINS), FRAMES, 2, min_time=2),
    Architecture("frame_classifier", seeded(FrameClassifier), _clip, {"clip": BATCH_TIME}, 1),
    Architecture("line_reader", seeded(lambda: _settled(LineReader)), _line, {"image": {0: "batch", 3: "time"}}, 1),
    Architecture("keyword_spotter", seeded(KeywordSpotter), signal(BINS), FRAMES, 0, scan_nodes=2),
    Architecture("two_way_projection", seeded(TwoWayProjection), signal(BINS), FRAMES, 0, scan_nodes=1),
    Architecture("speaker_embedding", seeded(SpeakerEmbedding), signal(BINS), FRAMES, 1, scan_nodes=2),
)
