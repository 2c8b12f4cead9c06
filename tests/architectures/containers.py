"""Models whose LSTMs sit in containers, are shared, wrapped or reparametrised, or take inputs in containers."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import itertools
import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.architectures.architecture import BATCH_TIME, STATE, Architecture, Draw, Inputs, seeded, signal

WORDS = 19


class Siamese(nn.Module):
    """How alike two sentences are: one LSTM reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 7)
        self.lstm = nn.LSTM(7, 8, batch_first=True)
        self.score = nn.Linear(8, 1)

    def read(self, sentence: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embed(sentence))
        return hidden[-1]

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        apart = torch.abs(self.read(left) - self.read(right))
        return torch.exp(-apart.sum(dim=1)), self.score(apart)


class NormedLSTM(nn.LSTM):
    """An nn.LSTM with layer norm on what comes out and a skip of what went in."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, batch_first=True)
        self.norm = nn.LayerNorm(size)

    def forward(  # type: ignore[override]
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        out, state = super().forward(input * 0.5, hx)
        return self.norm(out) + input, state


class SubclassModel(nn.Module):
    """Two layers of that subclass, the second starting where the first ended."""

    def __init__(self) -> None:
        super().__init__()
        self.low = NormedLSTM(6)
        self.high = NormedLSTM(6)

    def forward(self, x: Tensor) -> Tensor:
        x, state = self.low(x)
        x, _ = self.high(x, state)
        return x


class ListOfLSTMs(nn.Module):
    """A list of LSTMs in a loop, each on the output of the one before, narrower each time."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [4, 12, 8, 5]
        self.layers = nn.ModuleList(
            nn.LSTM(size, following, batch_first=True) for size, following in itertools.pairwise(sizes)
        )
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ends = []
        for layer in self.layers:
            x, (hidden, _) = layer(x)
            x = self.dropout(x)
            ends.append(hidden[-1])
        return x, torch.cat(ends, dim=-1)


class BandsModel(nn.Module):
    """A dict of LSTMs, one for each band of the features, in a loop over its items."""

    def __init__(self) -> None:
        super().__init__()
        self.bands = {"low": slice(0, 3), "middle": slice(3, 5), "high": slice(5, 9)}
        self.readers = nn.ModuleDict(
            {name: nn.LSTM(band.stop - band.start, 5, batch_first=True) for name, band in self.bands.items()}
        )
        self.head = nn.Linear(15, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        outputs = {name: reader(x[..., self.bands[name]])[0] for name, reader in self.readers.items()}
        outputs["all"] = self.head(torch.cat(list(outputs.values()), dim=-1))
        return outputs


class TakeOutput(nn.Module):
    """Keeps the output of an LSTM and drops its states, for nn.Sequential."""

    def forward(self, result: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
        return result[0]


class TwoBranches(nn.Module):
    """One dict in and one dict out: tokens through one LSTM, features through another."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 6)
        self.words = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.sensors = nn.LSTM(4, 5, batch_first=True)
        self.tag = nn.Linear(21, 3)
        self.score = nn.Linear(21, 1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        words, _ = self.words(self.embed(batch["tokens"]))
        sensors, _ = self.sensors(batch["features"])
        both = torch.cat([words, sensors], dim=-1)
        return {"tags": self.tag(both), "score": self.score(both.mean(dim=1)).squeeze(-1)}


class ListOfChannels(nn.Module):
    """A list of tensors in, each with an LSTM of its own, a list of tensors out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList([nn.LSTM(3, 6, batch_first=True), nn.LSTM(2, 6, batch_first=True)])
        self.mix = nn.Linear(6, 4)

    def forward(self, channels: list[Tensor]) -> list[Tensor]:
        return [self.mix(lstm(channel)[0]) for lstm, channel in zip(self.lstms, channels, strict=True)]


class SharedEncoder(nn.Module):
    """An encoder module, with an LSTM inside, that is used at two places under two names."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nn.Sequential(nn.Linear(3, 5), nn.LSTM(5, 5, num_layers=2, batch_first=True), TakeOutput())
        self.past = encoder
        self.present = encoder
        self.head = nn.Linear(5, 2)

    def forward(self, past: Tensor, present: Tensor) -> Tensor:
        before = self.past(past)[:, -1]
        now = self.present(present)
        return self.head(now - before.unsqueeze(1))


class TwoPasses(nn.Module):
    """The same LSTM reads the sequence twice, the second time knowing how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6)

    def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        x = x.transpose(0, 1)
        _, state = self.lstm(x, (h0, torch.zeros_like(h0)))
        out, (hn, _) = self.lstm(x, state)
        return out.transpose(0, 1), hn


class Unbatched(nn.Module):
    """The LSTM gets (time, features) without a batch axis, so the model works at batch 1 only."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, (hidden, _) = self.lstm(x)
        return self.head(out), hidden[-1]


class Reparametrised(nn.Module):
    """Weight norm on the recurrent weights of an LSTM: by the parametrisation, or by the hook that was before it."""

    def __init__(self, by_hook: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 7, batch_first=True)
        self.head = nn.Linear(7, 2)
        if by_hook:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is deprecated, and still used
                nn.utils.weight_norm(self.lstm, "weight_hh_l0")
            gain = self.lstm.weight_hh_l0_g
        else:
            parametrizations.weight_norm(self.lstm, "weight_hh_l0")
            gain = self.lstm.parametrizations.weight_hh_l0.original0  # type: ignore[union-attr]
        # a gain that differs from the norm of the weights, as after training
        nn.init.uniform_(gain, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


class InitialisedModel(nn.Module):
    """Orthogonal recurrent weights and a forget bias of 1, set by name, under a head made with nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(6, 6), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Linear(6, 1))
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
                parameter.data[6:12].fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0]).squeeze(-1)


def _sequential() -> nn.Module:
    return nn.Sequential(nn.LSTM(4, 8, batch_first=True), TakeOutput(), nn.Linear(8, 3), nn.Softmax(dim=-1))


def _two_sentences(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return {"left": draw.tokens(WORDS), "right": draw.tokens(WORDS, batch, time + 1)}


def _dict_of_branches(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return ({"tokens": draw.tokens(WORDS), "features": draw.floats(batch, time, 4)},)


def _list_of_channels(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return ([draw.floats(batch, time, 3), draw.floats(batch, time, 2)],)


def _past_and_present(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time + 3, 3), draw.floats(batch, time, 3)


def _signal_and_hidden(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 4), draw.floats(1, batch, 6).tanh()


def _unbatched(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(time, 4),)


X = {"x": BATCH_TIME}

ARCHITECTURES = (
    Architecture(
        "siamese", seeded(Siamese), _two_sentences, {"left": BATCH_TIME, "right": {0: "batch", 1: "right_time"}}, 2
    ),
    Architecture("lstm_subclass", seeded(SubclassModel), signal(6), X, 2),
    Architecture("module_list", seeded(ListOfLSTMs), signal(4), X, 3),
    Architecture("module_dict", seeded(BandsModel), signal(9), X, 3),
    Architecture("sequential", seeded(_sequential), signal(4), {"input": BATCH_TIME}, 1),
    Architecture(
        "two_branches",
        seeded(TwoBranches),
        _dict_of_branches,
        {"batch": {"tokens": BATCH_TIME, "features": BATCH_TIME}},
        2,
    ),
    Architecture(
        "list_of_channels", seeded(ListOfChannels), _list_of_channels, {"channels": [BATCH_TIME, BATCH_TIME]}, 2
    ),
    Architecture(
        "shared_encoder",
        seeded(SharedEncoder),
        _past_and_present,
        {"past": {0: "batch", 1: "past_time"}, "present": BATCH_TIME},
        4,
    ),
    Architecture("two_passes", seeded(TwoPasses), _signal_and_hidden, {"x": BATCH_TIME, "h0": STATE}, 2),
    Architecture("unbatched", seeded(Unbatched), _unbatched, {"x": {0: "time"}}, 2, fixed_batch=True),
    Architecture("weight_norm", seeded(lambda: Reparametrised(False)), signal(4), X, 1),
    Architecture("weight_norm_hook", seeded(lambda: Reparametrised(True)), signal(4), X, 1),
    Architecture("initialised", seeded(InitialisedModel), signal(4), X, 2),
)
