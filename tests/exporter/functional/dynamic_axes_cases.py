"""Modules and examples for which nobody gives dynamic_shapes, and the axes to find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class LanguageModel(nn.Module):
    """Time first, with states as an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(20, 4), nn.LSTM(4, 6, 2)

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        return self.lstm(self.embed(tokens), state)


class ChannelsFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv1d(3, 4, 3, padding=1), nn.LSTM(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.conv(x).permute(2, 0, 1))[0]


class Waveform(nn.Module):
    """The last axis is time, and comes in steps of four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv1d(1, 4, 8, stride=4), nn.LSTM(4, 6, batch_first=True)

    def forward(self, wave: Tensor) -> Tensor:
        return self.lstm(self.conv(wave[:, None]).transpose(1, 2))[0]


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.lstm(x * mask[..., None])[0]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


class PackedWithStates(nn.Module):
    """torch itself ends the process where a packed sequence comes with an h of more layers than c."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, 3, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed, state)[1]


class SortedPacked(nn.Module):
    """Lengths must fall, and the longest must fill the time axis: the mask is as long as what is unpacked."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        out = pad_packed_sequence(self.lstm(pack_padded_sequence(x, lengths, batch_first=True))[0], batch_first=True)[0]
        return out * (x[..., :1] > 0)


class ManyStates(nn.Module):
    """A state for each of several layers: the batch is an axis of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(4, 4) for _ in range(4))

    def forward(self, x: Tensor, states: list[tuple[Tensor, Tensor]]) -> Tensor:
        for layer, state in zip(self.layers, states, strict=True):
            x, _ = layer(x, state)
        return x


class Gathered(nn.Module):
    """torch.gather takes as many rows as its index has, so that `x` alone may have more."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.words = nn.LSTM(4, 6), nn.LSTM(6, 5)

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        return self.words(self.lstm(x)[0].gather(0, ends.unsqueeze(2).expand(-1, -1, 6)))[0]


class Rates(nn.Module):
    """Three inputs of one duration: each has as many entries a step as its rate says."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3 + 5 + 2, 6, batch_first=True)

    def forward(self, slow: Tensor, middle: Tensor, fast: Tensor) -> Tensor:
        whole = (slow.repeat_interleave(4, 1), middle.repeat_interleave(2, 1), fast)
        return self.lstm(torch.cat(whole, -1))[0]


class Shifted(nn.Module):
    """Every token but the last, beside what comes next."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(9, 4), nn.LSTM(4, 6, batch_first=True)

    def forward(self, tokens: Tensor, following: Tensor) -> Tensor:
        return self.lstm(self.embed(tokens[:, :-1]) + self.embed(following))[0]


class FlatRollout(nn.Module):
    """Rows of sequences of four steps, laid flat, and a state for each sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return self.gru(x.reshape(x.shape[0] // 4, 4, 3), state)[0].flatten(0, 1)


class SpelledWords(nn.Module):
    """The letters of every word of a batch as so many rows."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.words = nn.LSTM(4, 3, batch_first=True), nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: Tensor, letters: Tensor) -> Tensor:
        spelled = self.letters(letters)[1][0][-1].view(x.shape[0], x.shape[1], 3)
        return self.words(torch.cat([x, spelled], -1))[0]


class SpelledByLength(nn.Module):
    """The letters of words in an order of their own, in which `places` finds each word; both are packed."""

    def __init__(self) -> None:
        super().__init__()
        self.letters, self.words = nn.LSTM(4, 3, batch_first=True), nn.LSTM(8, 6, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor, letters: Tensor, spans: Tensor, places: Tensor) -> Tensor:
        spelled = self.letters(pack_padded_sequence(letters, spans, batch_first=True))[1][0][-1][places]
        spelled = spelled.view(x.shape[0], x.shape[1], 3)
        packed = pack_padded_sequence(torch.cat([x, spelled], -1), lengths, batch_first=True)
        return pad_packed_sequence(self.words(packed)[0], batch_first=True)[0]


class TwoSequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(4, 6, batch_first=True), nn.LSTM(4, 6, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decoder(target, self.encoder(source)[1])[0]


class Vocoder(nn.Module):
    """Takes a waveform with four samples for each frame but the last four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(3, 3, 5), nn.GRU(4, 6, batch_first=True)

    def forward(self, wave: Tensor, frames: Tensor) -> Tensor:
        if wave.size(1) != (frames.size(2) - 4) * 4:
            raise ValueError("the waveform does not fit the frames")
        up = self.conv(frames).repeat_interleave(4, 2).transpose(1, 2)
        return self.rnn(torch.cat([wave.unsqueeze(2), up], 2))[0]


class Doubled(nn.Module):
    """Takes two targets for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        return self.lstm(x)[0] + targets.reshape(x.size(0), x.size(1), 2).sum(-1, keepdim=True)


class Folded(nn.Module):
    """Its batch may be one of several steps: twice the rows, or twice the features, are two steps a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        return self.lstm(x.reshape(state[0].size(1), -1, 4).swapaxes(0, 1), state)[0]


def zeros(batch: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(2, batch, 6), torch.zeros(2, batch, 6)


BATCH_TIME = {0: "batch", 1: "time"}
STATES = ({1: "batch"}, {1: "batch"})
LANGUAGE_MODEL = {"tokens": {0: "time", 1: "batch"}, "state": STATES}


class Forecast(nn.Module):
    """As many features, layers and sequences: two each; seven axes of one size, four of them the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.series, self.lstm = nn.Embedding(7, 3), nn.LSTM(5, 6, 2, batch_first=True)

    def forward(self, x: Tensor, series: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        embedded = self.series(series).unsqueeze(1).expand(-1, x.size(1), -1)
        return self.lstm(torch.cat([x, embedded], 2), state)


class Layers(nn.Module):
    """Each LSTM of a list takes its layer of the states; more layers than there are would be ignored."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList([nn.LSTM(4, 6), nn.LSTM(6, 6)])

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
        for index, lstm in enumerate(self.lstms):
            x, _ = lstm(x, (state[0][index : index + 1], state[1][index : index + 1]))
        return x


class CellOverSteps(nn.Module):
    """A cell in a loop over the steps: what is longer calls it more often; nobody reads what belongs to the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 6)

    def forward(self, x: Tensor, unread: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        for step in range(x.size(0)):
            h, c = self.cell(x[step], (h, c))
        return h, unread


class OwnCells(nn.Module):
    """Cells without a recurrent module, and as many layers as sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList([nn.Linear(10, 6), nn.Linear(12, 6)])

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = list(torch.unbind(state))
        for step in range(x.size(0)):
            value = x[step]
            for index, gates in enumerate(self.gates):
                value = h[index] = torch.tanh(gates(torch.cat([value, h[index]], 1)))
        return value, torch.stack(h)


class Wrapper(nn.Module):
    """Calls the forward of what it wraps, as wrappers that drop weights do, past all hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        return self.module.forward(*args)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = Wrapper(nn.LSTM(4, 6, 2))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> Any:
        return self.rnn(x, state)


CASES: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = [
    (LanguageModel(), (torch.zeros(5, 3).long(), zeros(3)), LANGUAGE_MODEL),
    (LanguageModel(), (torch.zeros(1, 1).long(), zeros(1)), LANGUAGE_MODEL),  # nothing is told apart by its size
    (LanguageModel(), (torch.zeros(2, 2).long(), zeros(2)), LANGUAGE_MODEL),  # nor here, where 2 layers look alike
    (ChannelsFirst(), (torch.randn(3, 3, 3),), {"x": {0: "batch", 2: "time"}}),
    (Waveform(), (torch.randn(1, 64),), {"wave": {0: "batch", 1: "time"}}),
    (Masked(), (torch.randn(1, 1, 4), torch.ones(1, 1)), {"x": BATCH_TIME, "mask": BATCH_TIME}),
    (Masked(), (torch.randn(4, 4, 4), torch.ones(4, 4)), {"x": BATCH_TIME, "mask": BATCH_TIME}),
    (Packed(), (torch.randn(2, 5, 4), torch.tensor([5, 3])), {"x": BATCH_TIME, "lengths": {0: "batch"}}),
    (Packed(), (torch.randn(1, 1, 4), torch.tensor([1])), {"x": BATCH_TIME, "lengths": {0: "batch"}}),
    (SortedPacked(), (torch.randn(2, 5, 4), torch.tensor([5, 3])), {"x": BATCH_TIME, "lengths": {0: "batch"}}),
    (
        ManyStates(),
        (torch.randn(5, 2, 4), [(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)) for _ in range(4)]),
        {"x": {0: "time", 1: "batch"}, "states": [STATES] * 4},
    ),
    (
        Gathered(),
        (torch.randn(7, 2, 4), torch.zeros(3, 2).long()),
        {"x": {0: "time", 1: "batch"}, "ends": {0: "ends_0", 1: "batch"}},
    ),
    (
        Rates(),
        (torch.randn(2, 6, 3), torch.randn(2, 12, 5), torch.randn(2, 24, 2)),
        {"slow": BATCH_TIME, "middle": {0: "batch", 1: "2*time"}, "fast": {0: "batch", 1: "4*time"}},
    ),
    (
        Shifted(),
        (torch.zeros(2, 7).long(), torch.zeros(2, 6).long()),
        {"tokens": {0: "batch", 1: "time + 1"}, "following": BATCH_TIME},
    ),
    (FlatRollout(), (torch.randn(8, 3), torch.zeros(1, 2, 5)), {"x": {0: "4*batch"}, "state": {1: "batch"}}),
    (
        SpelledWords(),
        (torch.randn(2, 6, 5), torch.randn(12, 7, 4)),
        {"x": {0: "batch", 1: "x_1"}, "letters": {0: "batch*x_1", 1: "time"}},
    ),
    (
        SpelledByLength(),
        (torch.randn(2, 6, 5), torch.tensor([6, 4]), torch.randn(12, 7, 4), torch.full((12,), 7), torch.arange(12)),
        {
            "x": {0: "x_0", 1: "time"},
            "lengths": {0: "x_0"},
            "letters": {0: "batch", 1: "letters_1"},
            "spans": {0: "batch"},
            "places": {0: "x_0*time"},
        },
    ),
    (
        TwoSequences(),
        (torch.randn(2, 5, 4), torch.randn(2, 5, 4)),
        {"source": BATCH_TIME, "target": {0: "batch", 1: "target_1"}},
    ),
    (
        Vocoder(),
        (torch.randn(2, 20), torch.randn(2, 3, 9)),
        {"wave": {0: "batch", 1: "4*time - 16"}, "frames": {0: "batch", 2: "time"}},
    ),
    (Doubled(), (torch.randn(2, 5, 4), torch.randn(2, 10)), {"x": BATCH_TIME, "targets": {0: "batch", 1: "2*time"}}),
    (
        Folded(),
        (torch.randn(2, 4), (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6))),
        {"x": {0: "batch"}, "state": STATES},
    ),
    (
        Forecast(),
        (torch.randn(2, 5, 2), torch.zeros(2).long(), (torch.zeros(2, 2, 6), torch.zeros(2, 2, 6))),
        {"x": BATCH_TIME, "series": {0: "batch"}, "state": STATES},
    ),
    (Layers(), (torch.randn(5, 3, 4), zeros(3)), {"x": {0: "time", 1: "batch"}, "state": STATES}),
    (
        CellOverSteps(),
        (torch.randn(5, 3, 4), torch.randn(5), (torch.zeros(3, 6), torch.zeros(3, 6))),
        {"x": {0: "time", 1: "batch"}, "unread": {0: "unread_0"}, "state": ({0: "batch"}, {0: "batch"})},
    ),
    (OwnCells(), (torch.randn(5, 2, 4), torch.zeros(2, 2, 6)), {"x": {0: "time", 1: "batch"}, "state": {1: "batch"}}),
    (
        PackedWithStates(),
        (torch.randn(2, 5, 4), torch.tensor([5, 3]), (torch.zeros(3, 2, 6), torch.zeros(3, 2, 6))),
        {"x": BATCH_TIME, "lengths": {0: "batch"}, "state": STATES},
    ),
    (Wrapped(), (torch.randn(5, 3, 4), zeros(3)), {"x": {0: "time", 1: "batch"}, "state": STATES}),
]
