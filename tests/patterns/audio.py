"""Sound and music: separation, transcription, events and pitch."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained

BINS = 8


class ComplexLSTM(nn.Module):
    """A list of real and imaginary parts; each of two LSTMs reads both, and a list comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.real_lstm, self.imag_lstm = nn.LSTM(BINS, 6), nn.LSTM(BINS, 6)
        self.r_trans, self.i_trans = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, inputs: list[Tensor] | Tensor) -> list[Tensor]:
        if isinstance(inputs, list):
            real, imag = inputs
        else:
            real, imag = torch.chunk(inputs, 2, -1)
        real_of_real, imag_of_real = self.real_lstm(real)[0], self.imag_lstm(real)[0]
        real_of_imag, imag_of_imag = self.real_lstm(imag)[0], self.imag_lstm(imag)[0]
        return [self.r_trans(real_of_real - imag_of_imag), self.i_trans(real_of_imag + imag_of_real)]


class ChunkedSeparator(nn.Module):
    """Chunks (batch, features, chunk, chunks): one BiLSTM within a chunk, another across them, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.intra = nn.LSTM(6, 5, 1, batch_first=True, bidirectional=True)
        self.inter = nn.LSTM(6, 5, 1, batch_first=True, bidirectional=True)
        self.intra_norm, self.inter_norm = nn.GroupNorm(1, 6, eps=1e-8), nn.GroupNorm(1, 6, eps=1e-8)
        self.intra_linear, self.inter_linear = nn.Linear(10, 6), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, n, k, s = x.shape
        within = x.permute(0, 3, 2, 1).contiguous().view(b * s, k, n)
        within, _ = self.intra(within)
        within = self.intra_linear(within.contiguous().view(b * s * k, -1)).view(b * s, k, -1)
        within = within.view(b, s, k, n).permute(0, 3, 2, 1).contiguous()
        within = self.intra_norm(within) + x
        across = within.permute(0, 2, 3, 1).contiguous().view(b * k, s, n)
        across, _ = self.inter(across)
        across = self.inter_linear(across.contiguous().view(b * s * k, -1)).view(b * k, s, -1)
        across = across.view(b, k, s, n).permute(0, 3, 1, 2).contiguous()
        return self.inter_norm(across) + within


class MaskSeparator(nn.Module):
    """A softmax over speakers for each step and bin, from a packed BiLSTM under a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.speakers = 2
        self.layer_norm = nn.LayerNorm(BINS)
        self.rnn = nn.LSTM(BINS, 7, 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(14, self.speakers * BINS)

    def forward(self, mixture_w: Tensor, mixture_lengths: Tensor) -> Tensor:
        batch, steps, bins = mixture_w.size()
        normed = self.layer_norm(mixture_w)
        packed = pack_padded_sequence(normed, mixture_lengths, batch_first=True)
        output, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=normed.size(1))
        score = self.fc(output).view(batch, steps, self.speakers, bins)
        return F.softmax(score, dim=2)


class BiLSTMBlock(nn.Module):
    """A BiLSTM with a linear layer back to its input's width; it returns its state too."""

    def __init__(self, width: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bidirectional=bidirectional, num_layers=2, hidden_size=width, input_size=width)
        self.linear = nn.Linear(2 * width, width) if bidirectional else None

    def forward(self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        x, hidden = self.lstm(x, hidden)
        if self.linear:
            x = self.linear(x)
        return x, hidden


class WaveUNet(nn.Module):
    """Strided convolutions down, an LSTM at the bottom, transposed ones up; skips are cut to what comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        width, into = 4, 1
        for index in range(2):
            down = nn.Sequential(nn.Conv1d(into, width, 4, 2), nn.ReLU(), nn.Conv1d(width, width * 2, 1), nn.GLU(1))
            up: list[nn.Module] = [nn.Conv1d(width, 2 * width, 1), nn.GLU(1), nn.ConvTranspose1d(width, into, 4, 2)]
            self.encoder.append(down)
            self.decoder.insert(0, nn.Sequential(*up, nn.ReLU()) if index else nn.Sequential(*up))
            into, width = width, width * 2
        self.lstm = BiLSTMBlock(into, bidirectional=False)

    def forward(self, mix: Tensor) -> Tensor:
        if mix.dim() == 2:
            mix = mix.unsqueeze(1)
        std = mix.std(dim=-1, keepdim=True)
        x = mix / (0.001 + std)
        skips = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        x, _ = self.lstm(x.permute(2, 0, 1))
        x = x.permute(1, 2, 0)
        for decode in self.decoder:
            skip = skips.pop(-1)
            x = decode(x + skip[..., : x.shape[-1]])
        return std * x


class SpeakerActivity(nn.Module):
    """Waveform to overlapping speakers: filters, pools and instance norms, then single-layer BiLSTMs in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.wav_norm = nn.InstanceNorm1d(1, affine=True)
        self.conv, self.pool = nn.ModuleList([nn.Conv1d(1, 6, 5, 2), nn.Conv1d(6, 4, 3)]), nn.MaxPool1d(3, 3)
        self.norm = nn.ModuleList([nn.InstanceNorm1d(6, affine=True), nn.InstanceNorm1d(4, affine=True)])
        self.lstm = nn.ModuleList(
            nn.LSTM(4 if index == 0 else 10, 5, num_layers=1, bidirectional=True, batch_first=True)
            for index in range(2)
        )
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.ModuleList([nn.Linear(10, 8), nn.Linear(8, 8)])
        self.classifier, self.activation = nn.Linear(8, 3), nn.LogSoftmax(dim=-1)

    def forward(self, waveforms: Tensor) -> Tensor:
        outputs = self.wav_norm(waveforms)
        for index, (conv, norm) in enumerate(zip(self.conv, self.norm, strict=True)):
            outputs = conv(outputs)
            if index == 0:
                outputs = torch.abs(outputs)
                outputs = self.pool(outputs)
            outputs = F.leaky_relu(norm(outputs))
        outputs = torch.einsum("bcf->bfc", outputs)
        for index, lstm in enumerate(self.lstm):
            outputs, _ = lstm(outputs)
            if index + 1 < len(self.lstm):
                outputs = self.dropout(outputs)
        for linear in self.linear:
            outputs = F.leaky_relu(linear(outputs))
        return self.activation(self.classifier(outputs))


class SoundEvents(nn.Module):
    """Events of each frame and of the clip: a clamped softmax over classes weighs the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d((1, 4)),
            nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d((1, 2)),
        )  # fmt: skip
        self.rnn = nn.GRU(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.dense, self.sigmoid = nn.Linear(10, 4), nn.Sigmoid()
        self.dense_softmax, self.softmax = nn.Linear(10, 4), nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.cnn(x)
        _, chan, _, freq = x.size()
        x = x.squeeze(-1) if freq == 1 else x.permute(0, 2, 1, 3).contiguous().view(-1, chan * freq)
        x, _ = self.rnn(x.permute(0, 2, 1))
        strong = self.sigmoid(self.dense(x))
        sof = torch.clamp(self.softmax(self.dense_softmax(x)), min=1e-7, max=1)
        weak = (strong * sof).sum(1) / sof.sum(1)
        return strong, weak


class NoteModel(nn.Module):
    """Convolutions that keep the frames, a batch norm in the middle of a transpose, and a BiGRU; sigmoids for notes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.fc5, self.bn5 = nn.Linear(4 * (BINS // 2), 10, bias=False), nn.BatchNorm1d(10)
        self.gru = nn.GRU(10, 6, num_layers=2, bias=True, batch_first=True, dropout=0.0, bidirectional=True)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu_(self.bn(self.conv(x))), kernel_size=(1, 2))
        x = F.dropout(x, p=0.2, training=self.training).transpose(1, 2).flatten(2)
        x = F.relu(self.bn5(self.fc5(x).transpose(1, 2)).transpose(1, 2))
        x = F.dropout(x, p=0.5, training=self.training, inplace=True)
        return torch.sigmoid(self.fc(self.gru(x)[0]))


class PianoNotes(nn.Module):
    """Three such models: velocities sharpen the onsets, which a further GRU reads; a dict comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(BINS)
        self.frame_model, self.onset_model, self.velocity_model = NoteModel(), NoteModel(), NoteModel()
        self.onset_gru = nn.GRU(10, 6, batch_first=True, bidirectional=True)
        self.onset_fc = nn.Linear(12, 5)

    def forward(self, logmel: Tensor) -> dict[str, Tensor]:
        x = self.bn0(logmel.transpose(1, 3)).transpose(1, 3)
        frame, onset, velocity = self.frame_model(x), self.onset_model(x), self.velocity_model(x)
        joined = torch.cat((onset, onset**0.5 * velocity.detach()), dim=2)
        joined, _ = self.onset_gru(joined)
        joined = F.dropout(joined, p=0.5, training=self.training, inplace=False)
        return {"onset": torch.sigmoid(self.onset_fc(joined)), "frame": frame, "velocity": velocity}


class OnsetsBeforeFrames(nn.Module):
    """Onsets and activations, both detached, decide on frames; velocities come from convolutions alone."""

    def __init__(self) -> None:
        super().__init__()

        def stack() -> nn.Module:
            return nn.Sequential(nn.Conv1d(BINS, 9, 3, padding=1), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.25))

        self.onset_stack, self.frame_stack, self.velocity_stack = stack(), stack(), stack()
        self.onset_rnn = nn.LSTM(9, 6, batch_first=True, bidirectional=True)
        self.onset_head, self.frame_head = nn.Linear(12, 4), nn.Linear(9, 4)
        self.combined_rnn = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.combined_head, self.velocity_head = nn.Linear(12, 4), nn.Linear(9, 4)

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        x = mel.transpose(-1, -2)
        onset = self.onset_head(self.onset_rnn(self.onset_stack(x).mT)[0]).sigmoid()
        activation = self.frame_head(self.frame_stack(x).mT).sigmoid()
        combined = torch.cat([onset.detach(), activation.detach()], dim=-1)
        frame = self.combined_head(self.combined_rnn(combined)[0]).sigmoid()
        return onset, activation, frame, self.velocity_head(self.velocity_stack(x).mT)


class ContrastiveCoder(nn.Module):
    """Strided convolutions over samples, a GRU with its state in and out, and its last step through every head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 6, kernel_size=10, stride=5, padding=3, bias=False), nn.BatchNorm1d(6), nn.ReLU(inplace=True),
            nn.Conv1d(6, 6, kernel_size=4, stride=2, padding=1, bias=False), nn.BatchNorm1d(6), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.gru = nn.GRU(6, 5, num_layers=1, bidirectional=False, batch_first=True)
        self.heads = nn.ModuleList([nn.Linear(5, 6) for _ in range(3)])

    def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.encoder(x).transpose(1, 2)
        output, hidden = self.gru(z, hidden)
        last = output[:, -1, :]
        return torch.stack([head(last) for head in self.heads]), output, hidden


class PitchDetector(nn.Module):
    """Residual convolutions over (batch, 1, bins, frames), pooled over bins alone; classes and voicing a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.01, inplace=True)
        )
        self.pre, self.skip = nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.01)), nn.Conv2d(4, 6, 1, bias=False)
        self.res = nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1)
        )
        self.pool = nn.MaxPool2d(kernel_size=(1, 2))
        self.classifier_rnn = nn.LSTM(24, 8, batch_first=True, bidirectional=True)
        self.detector_rnn = nn.LSTM(24, 4, batch_first=True, bidirectional=True)
        self.classifier, self.detector = nn.Linear(16, 5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seq_len = x.shape[-1]
        x = x.float().transpose(-1, -2)
        x = self.pre(self.conv(x))
        x = self.pool(self.res(x) + self.skip(x))
        x = x.permute(0, 2, 1, 3).contiguous().view((-1, seq_len, 24))
        classes, _ = self.classifier_rnn(x)
        voicing, _ = self.detector_rnn(x)
        classes = self.classifier(classes.contiguous().view((-1, 16))).view((-1, seq_len, 5))
        voicing = self.detector(voicing.contiguous().view((-1, 8))).view((-1, seq_len, 2))
        return torch.abs(classes.squeeze(-1)), voicing.sum(axis=-1)


def _parts(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return ([draw.floats(time, batch, BINS), draw.floats(time, batch, BINS)],)


def _mixture(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"mixture_w": draw.floats(batch, time, BINS), "mixture_lengths": draw.lengths(descending=True)}


PATTERNS = (
    Pattern("complex_lstm", "huyanxin/DeepComplexCRN complexnn.py", trained(ComplexLSTM), _parts),
    Pattern(
        "chunked_separator",
        "JusperLee/Dual-Path-RNN-Pytorch model/model_rnn.py",
        trained(ChunkedSeparator),
        lambda batch, time: (Draw(batch, time).floats(batch, 6, 4, time),),
    ),
    Pattern("mask_separator", "kaituoxu/TasNet src/tasnet.py", trained(MaskSeparator), _mixture),
    Pattern(
        "wave_unet",
        "facebookresearch/denoiser denoiser/demucs.py",
        trained(WaveUNet),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, 4 * time + 6),),
    ),
    Pattern(
        "speaker_activity",
        "pyannote/pyannote-audio src/pyannote/audio/models/segmentation/PyanNet.py",
        trained(SpeakerActivity),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, 6 * time + 35),),
    ),
    Pattern(
        "sound_events",
        "turpaultn/DCASE2019_task4 baseline/models/CRNN.py",
        trained(SoundEvents),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, time, BINS),),
    ),
    Pattern(
        "piano_notes",
        "bytedance/piano_transcription pytorch/models.py",
        trained(PianoNotes),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, time, BINS),),
    ),
    Pattern(
        "onsets_before_frames",
        "jongwook/onsets-and-frames onsets_and_frames/transcriber.py",
        trained(OnsetsBeforeFrames),
        signal(BINS),
    ),
    Pattern(
        "contrastive_coder",
        "jefflai108/Contrastive-Predictive-Coding-PyTorch src/model/model.py",
        trained(ContrastiveCoder),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, 10 * time), Draw(batch, time).floats(1, batch, 5)),
    ),
    Pattern(
        "pitch_detector",
        "yl4579/StyleTTS2 Utils/JDC/model.py",
        trained(PitchDetector),
        lambda batch, time: (Draw(batch, time).floats(batch, 1, BINS, time),),
    ),
)
