"""A voice: its vector, its mask, its codes."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained

MELS = 6


class VoiceMask(nn.Module):
    """Padded, dilated convolutions over a spectrogram; a voice's vector is repeated for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.ZeroPad2d((3, 3, 0, 0)),
            nn.Conv2d(1, 4, kernel_size=(1, 7)),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.ZeroPad2d((1, 1, 4, 4)),
            nn.Conv2d(4, 2, kernel_size=(5, 3), dilation=(2, 1)),
            nn.BatchNorm2d(2),
            nn.ReLU(),
        )
        self.lstm = nn.LSTM(2 * MELS + 5, 9, batch_first=True, bidirectional=True)
        self.fc1, self.fc2 = nn.Linear(18, 10), nn.Linear(10, MELS)

    def forward(self, x: Tensor, dvec: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1)).transpose(1, 2).contiguous()
        x = x.view(x.size(0), x.size(1), -1)
        dvec = dvec.unsqueeze(1).repeat(1, x.size(1), 1)
        x, _ = self.lstm(torch.cat((x, dvec), dim=2))
        return torch.sigmoid(self.fc2(F.relu(self.fc1(F.relu(x)))))


class VoiceVector(nn.Module):
    """The last layer's state, rectified and divided by its norm; a first state is taken but need not be given."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 8, num_layers=3, batch_first=True)
        self.linear, self.relu = nn.Linear(8, 7), nn.ReLU()
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))

    def forward(self, utterances: Tensor, hidden_init: tuple[Tensor, Tensor] | None = None) -> Tensor:
        _, (hidden, _) = self.lstm(utterances, hidden_init)
        raw = self.relu(self.linear(hidden[-1]) + 1)
        return raw / (torch.norm(raw, dim=1, keepdim=True) + 1e-5)


class WindowedVoiceVector(nn.Module):
    """One spectrogram (mels, frames) cut into windows that overlap; they are the batch, and their mean the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, 8, num_layers=2, batch_first=True)
        self.proj = nn.Linear(8, 5)
        self.window, self.stride = 4, 2

    def forward(self, mel: Tensor) -> Tensor:
        mels = mel.unfold(1, self.window, self.stride).permute(1, 2, 0)
        x, _ = self.lstm(mels)
        x = self.proj(x[:, -1, :])
        x = x / torch.norm(x, p=2, dim=1, keepdim=True)
        return x.sum(0) / x.size(0)


class SparseCodes(nn.Module):
    """Every fourth step's code: the forward half from the end of each group of steps, the backward from its start."""

    def __init__(self) -> None:
        super().__init__()
        self.freq, self.neck = 4, 3
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv1d(MELS, MELS, 5, padding=2), nn.GroupNorm(2, MELS)) for _ in range(2)
        )
        self.lstm = nn.LSTM(MELS, self.neck, 1, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for conv in self.convolutions:
            x = F.relu(conv(x))
        self.lstm.flatten_parameters()
        outputs, _ = self.lstm(x.transpose(1, 2))
        if mask is not None:
            outputs = outputs * mask
        ahead, back = outputs[:, :, : self.neck], outputs[:, :, self.neck :]
        return torch.cat((ahead[:, self.freq - 1 :: self.freq, :], back[:, :: self.freq, :]), dim=-1)


class CodeDecoder(nn.Module):
    """Codes repeated to full rate beside a speaker's vector, through an LSTM, convolutions and two more LSTMs."""

    def __init__(self) -> None:
        super().__init__()
        self.freq = 3
        self.lstm1 = nn.LSTM(4 + 5, 8, 1, batch_first=True)
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv1d(8, 8, 5, padding=2), nn.BatchNorm1d(8)) for _ in range(2)
        )
        self.lstm2 = nn.LSTM(8, 10, 2, batch_first=True)
        self.projection = nn.Linear(10, MELS)

    def forward(self, codes: Tensor, speaker: Tensor) -> Tensor:
        whole = codes.unsqueeze(2).expand(-1, -1, self.freq, -1).reshape(codes.size(0), -1, codes.size(-1))
        x = torch.cat((whole, speaker.unsqueeze(1).expand(-1, whole.size(1), -1)), dim=-1)
        x, _ = self.lstm1(x)
        x = x.transpose(1, 2)
        for conv in self.convolutions:
            x = F.relu(conv(x))
        x, _ = self.lstm2(x.transpose(1, 2))
        return self.projection(x)


def _codes_and_mask(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, MELS, 4 * time), (draw.floats(batch, 4 * time, 1) > 0).float()


PATTERNS = (
    Pattern(
        "voice_mask",
        "maum-ai/voicefilter model/model.py",
        trained(VoiceMask),
        lambda batch, time: (Draw(batch, time).floats(batch, time, MELS), Draw(batch, time).floats(batch, 5)),
    ),
    Pattern("voice_vector", "CorentinJ/Real-Time-Voice-Cloning encoder/model.py", trained(VoiceVector), signal(MELS)),
    Pattern(
        "windowed_voice_vector",
        "maum-ai/voicefilter model/embedder.py",
        trained(WindowedVoiceVector),
        lambda batch, time: (Draw(batch, time).floats(MELS, time),),
        min_time=4,
        one_sequence=True,
    ),
    Pattern("sparse_codes", "auspicious3000/SpeechSplit model.py", trained(SparseCodes), _codes_and_mask),
    Pattern(
        "code_decoder",
        "auspicious3000/autovc model_vc.py",
        trained(CodeDecoder),
        lambda batch, time: (Draw(batch, time).floats(batch, time, 4), Draw(batch, time).floats(batch, 5)),
    ),
)
