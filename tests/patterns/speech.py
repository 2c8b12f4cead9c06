"""Text to speech, recognition and speaker models: sequences with lengths, and a vector for a voice or a style."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.architectures.architecture import Draw, Inputs, signal
from tests.patterns.pattern import Pattern, trained

SYMBOLS, MELS = 20, 6


class SynthesisEncoder(nn.Module):
    """Symbols through normed convolutions into a packed BiLSTM, whose lengths go through numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, 8)
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv1d(8, 8, 5, padding=2), nn.BatchNorm1d(8)) for _ in range(3)
        )
        self.lstm = nn.LSTM(8, 4, 1, batch_first=True, bidirectional=True)

    def forward(self, symbols: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(symbols).transpose(1, 2)
        for layer in self.convolutions:
            x = F.dropout(F.relu(layer(x)), 0.5, self.training)
        packed = pack_padded_sequence(x.transpose(1, 2), lengths.cpu().numpy(), batch_first=True)
        self.lstm.flatten_parameters()
        out, _ = self.lstm(packed)
        return pad_packed_sequence(out, batch_first=True)[0]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, time)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, -1), self.gamma.shape, self.gamma, self.beta, 1e-5).transpose(1, -1)


def copied_into_zeros(x: Tensor, mask: Tensor) -> Tensor:
    """`x` (batch, channels, steps) in zeros as long as the mask."""
    whole = torch.zeros([x.shape[0], x.shape[1], mask.shape[-1]])
    whole[:, :, : x.shape[-1]] = x
    return whole.to(x.device)


class MaskedTextEncoder(nn.Module):
    """Convolutions with weight norm, masked in place; the packed BiLSTM's result is copied into zeros."""

    def __init__(self) -> None:
        super().__init__()
        activation = nn.LeakyReLU(0.2)
        self.embedding = nn.Embedding(SYMBOLS, 8)
        self.cnn = nn.ModuleList()
        for _ in range(2):
            conv = weight_norm(nn.Conv1d(8, 8, 3, padding=1))
            self.cnn.append(nn.Sequential(conv, ChannelNorm(8), activation, nn.Dropout(0.2)))
        self.lstm = nn.LSTM(8, 4, 1, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, input_lengths: Tensor, m: Tensor) -> Tensor:
        x = self.embedding(x).transpose(1, 2)
        m = m.to(input_lengths.device).unsqueeze(1)
        x.masked_fill_(m, 0.0)
        for layer in self.cnn:
            x = layer(x)
            x.masked_fill_(m, 0.0)
        lengths = input_lengths.cpu().numpy()
        packed = pack_padded_sequence(x.transpose(1, 2), lengths, batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        x = copied_into_zeros(out.transpose(-1, -2), m)
        x.masked_fill_(m, 0.0)
        return x


class StyledNorm(nn.Module):
    """Layer norm whose gain and shift come from a style vector."""

    def __init__(self, style: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.fc = nn.Linear(style, channels * 2)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        h = self.fc(s)
        gamma, beta = torch.chunk(h.view(h.size(0), h.size(1), 1), chunks=2, dim=1)
        normed = F.layer_norm(x, (self.channels,), eps=1e-5)
        return (1 + gamma).transpose(1, -1) * normed + beta.transpose(1, -1)


class StyledEncoder(nn.Module):
    """A list of BiLSTMs and styled norms in turn, told apart by their class; the style is joined again after each."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList()
        for _ in range(2):
            self.lstms.append(nn.LSTM(8 + 3, 4, num_layers=1, batch_first=True, bidirectional=True))
            self.lstms.append(StyledNorm(3, 8))
        self.dropout = 0.1

    def forward(self, x: Tensor, style: Tensor, text_lengths: Tensor, m: Tensor) -> Tensor:
        masks = m.to(text_lengths.device)
        x = x.permute(2, 0, 1)
        s = style.expand(x.shape[0], x.shape[1], -1)
        x = torch.cat([x, s], dim=-1)
        x.masked_fill_(masks.unsqueeze(-1).transpose(0, 1), 0.0)
        x = x.transpose(0, 1).transpose(-1, -2)
        lengths = text_lengths.cpu()
        for block in self.lstms:
            if isinstance(block, StyledNorm):
                x = block(x.transpose(-1, -2), style).transpose(-1, -2)
                x = torch.cat([x, s.permute(1, -1, 0)], dim=1)
                x.masked_fill_(masks.unsqueeze(-1).transpose(-1, -2), 0.0)
            else:
                packed = pack_padded_sequence(x.transpose(-1, -2), lengths, batch_first=True, enforce_sorted=False)
                block.flatten_parameters()
                out, _ = pad_packed_sequence(block(packed)[0], batch_first=True)
                out = F.dropout(out, p=self.dropout, training=self.training)
                x = copied_into_zeros(out.transpose(-1, -2), masks)
        return x.transpose(-1, -2)


class StyledBlock(nn.Module):
    """A residual convolution under an instance norm that a style shifts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(channels, affine=False)
        self.fc = nn.Linear(3, channels * 2)
        self.conv = nn.Conv1d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = self.fc(s).unsqueeze(-1).chunk(2, dim=1)
        return (x + self.conv(F.leaky_relu((1 + gamma) * self.norm(x) + beta, 0.2))) / math.sqrt(2)


class PitchAndEnergy(nn.Module):
    """One BiLSTM under two towers of styled blocks: a pitch and an energy for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.LSTM(MELS + 3, 4, 1, batch_first=True, bidirectional=True)
        self.pitch = nn.ModuleList([StyledBlock(8), StyledBlock(8)])
        self.energy = nn.ModuleList([StyledBlock(8)])
        self.pitch_proj, self.energy_proj = nn.Conv1d(8, 1, 1, 1, 0), nn.Conv1d(8, 1, 1, 1, 0)

    def forward(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        x, _ = self.shared(x.transpose(-1, -2))
        pitch = x.transpose(-1, -2)
        for block in self.pitch:
            pitch = block(pitch, s)
        energy = x.transpose(-1, -2)
        for block in self.energy:
            energy = block(energy, s)
        return self.pitch_proj(pitch).squeeze(1), self.energy_proj(energy).squeeze(1)


class PredictiveCoder(nn.Module):
    """Packed GRUs with skips: each layer is unpacked, added to its input and packed again; all layers are stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.prenet = nn.Sequential(nn.Linear(MELS, 8), nn.ReLU(), nn.Dropout(0.1))
        self.rnns = nn.ModuleList(nn.GRU(8, 8, batch_first=True) for _ in range(3))
        self.rnn_dropout = nn.Dropout(0.1)
        self.postnet = nn.Conv1d(8, MELS, 1)

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        total = inputs.size(1)
        rnn_inputs = self.prenet(inputs)
        layers = [rnn_inputs]
        packed = pack_padded_sequence(rnn_inputs, lengths, True)
        for index, layer in enumerate(self.rnns):
            out, _ = pad_packed_sequence(layer(packed)[0], True, total_length=total)
            if index + 1 < len(self.rnns):
                out = self.rnn_dropout(out)
            rnn_inputs, _ = pad_packed_sequence(packed, True, total_length=total)
            if rnn_inputs.size(-1) == out.size(-1):
                out = out + rnn_inputs
            layers.append(out)
            packed = pack_padded_sequence(out, lengths, True)
        return self.postnet(out.transpose(1, 2)).transpose(1, 2), torch.stack(layers)


class StepNorm(nn.Module):
    """Batch norm over (time, batch, features) as so many rows."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.module = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        t, n = x.size(0), x.size(1)
        return self.module(x.view(t * n, -1)).view(t, n, -1)


class SummedDirections(nn.Module):
    """Recognition: packed BiLSTMs, time first, whose two directions are added; lengths follow the strided front."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 3, (3, 5), stride=(2, 2), padding=(1, 2)), nn.BatchNorm2d(3), nn.Hardtanh(0, 20)
        )
        self.norms = nn.ModuleList([StepNorm(9), StepNorm(7)])
        self.rnns = nn.ModuleList([nn.LSTM(9, 7, bidirectional=True), nn.LSTM(7, 7, bidirectional=True)])
        self.fc = nn.Linear(7, 5, bias=False)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.div(lengths.cpu().int() + 2 * 2 - (5 - 1) - 1, 2, rounding_mode="floor") + 1
        x = self.conv(x)
        sizes = x.size()
        x = x.view(sizes[0], sizes[1] * sizes[2], sizes[3]).transpose(1, 2).transpose(0, 1).contiguous()
        for norm, rnn in zip(self.norms, self.rnns, strict=True):
            x, _ = pad_packed_sequence(rnn(pack_padded_sequence(norm(x), seen))[0])
            x = x.view(x.size(0), x.size(1), 2, -1).sum(2).view(x.size(0), x.size(1), -1)
        return self.fc(x).transpose(0, 1).softmax(-1), seen


class LookAhead(nn.Module):
    """Recognition without a backward pass: GRUs with a list of states that starts as Nones, and a few steps ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.rnns = nn.ModuleList([nn.GRU(MELS, 8), nn.GRU(8, 8)])
        self.context = 4
        self.ahead = nn.Conv1d(8, 8, kernel_size=self.context, groups=8, padding=0, bias=False)
        self.fc = nn.Sequential(nn.Hardtanh(0, 20), nn.Linear(8, 5))

    def forward(self, x: Tensor, hs: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        states: list[Tensor | None] = [None] * len(self.rnns) if hs is None else list(hs)
        after = []
        for index, rnn in enumerate(self.rnns):
            x, h = rnn(x, states[index])
            after.append(h)
        x = F.pad(x.transpose(0, 1).transpose(1, 2), pad=(0, self.context - 1), value=0)
        x = self.ahead(x).transpose(1, 2).transpose(0, 1).contiguous()
        return self.fc(x).transpose(0, 1), after


class ReducedEncoder(nn.Module):
    """Layers that join neighbouring frames; frames too many are cut off after a branch on the size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.LSTM(MELS, 5, bidirectional=True, batch_first=True), nn.LSTM(20, 6, batch_first=True)]
        )
        self.norm, self.pj = nn.LayerNorm(10), nn.Linear(6, 6)
        self.rate = 2

    def forward(self, input_x: Tensor) -> Tensor:
        output, _ = self.layers[0](input_x)
        output = self.norm(output)
        batch, time, dim = output.shape
        if time % self.rate != 0:
            output = output[:, : -(time % self.rate), :]
        output = output.contiguous().view(batch, int(time / self.rate), dim * self.rate)
        return torch.tanh(self.pj(self.layers[1](output)[0]))


def _symbols(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    lengths = draw.lengths(descending=True)
    return draw.tokens(SYMBOLS) * (torch.arange(time) < lengths.unsqueeze(1)), lengths


def _text_and_mask(batch: int, time: int) -> Inputs:
    tokens, lengths = _symbols(batch, time)
    return {"x": tokens, "input_lengths": lengths, "m": torch.arange(time) >= lengths.unsqueeze(1)}


def _styled(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    lengths = draw.lengths()
    mask = torch.arange(time) >= lengths.unsqueeze(1)
    return draw.floats(batch, 8, time), draw.floats(batch, 3), lengths, mask


def _frames_and_lengths(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, MELS), draw.lengths(descending=True)


PATTERNS = (
    Pattern("synthesis_encoder", "NVIDIA/tacotron2 model.py", trained(SynthesisEncoder), _symbols),
    Pattern("masked_text_encoder", "yl4579/StyleTTS2 models.py", trained(MaskedTextEncoder), _text_and_mask),
    Pattern("styled_encoder", "yl4579/StyleTTS2 models.py", trained(StyledEncoder), _styled),
    Pattern(
        "pitch_and_energy",
        "yl4579/StyleTTS2 models.py",
        trained(PitchAndEnergy),
        lambda batch, time: (Draw(batch, time).floats(batch, MELS + 3, time), Draw(batch, time).floats(batch, 3)),
        min_time=2,
    ),
    Pattern(
        "predictive_coder",
        "iamyuanchung/Autoregressive-Predictive-Coding apc_model.py",
        trained(PredictiveCoder),
        _frames_and_lengths,
    ),
    Pattern(
        "summed_directions",
        "SeanNaren/deepspeech.pytorch deepspeech_pytorch/model.py",
        trained(SummedDirections),
        lambda batch, time: (
            Draw(batch, time).floats(batch, 1, MELS, time),
            Draw(batch, time).lengths(descending=True).int(),
        ),
    ),
    Pattern(
        "look_ahead",
        "SeanNaren/deepspeech.pytorch deepspeech_pytorch/model.py",
        trained(LookAhead),
        lambda batch, time: (Draw(batch, time).floats(time, batch, MELS),),
    ),
    Pattern(
        "reduced_encoder",
        "Alexander-H-Liu/End-to-end-ASR-Pytorch src/module.py",
        trained(ReducedEncoder),
        signal(MELS),
        min_time=2,
        # A branch on a remainder of the size, of which a graph has one way.
        refused="depends on the size",
    ),
)
