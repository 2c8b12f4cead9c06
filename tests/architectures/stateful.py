"""Models that keep their state in an attribute from call to call."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from tests.architectures.architecture import (
    BATCH_TIME,
    TIME_BATCH,
    Architecture,
    Draw,
    Inputs,
    seeded,
    signal,
    signal_time_first,
)

State = tuple[Tensor, Tensor]


def _zeros(layers: int, batch: int, hidden: int) -> State:
    return torch.zeros(layers, batch, hidden), torch.zeros(layers, batch, hidden)


class TutorialForecaster(nn.Module):
    """Takes one series (time, features) at a time: its view makes a batch of 1, so it works at batch 1 only."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_dim = 8
        self.lstm = nn.LSTM(3, self.hidden_dim)
        self.linear = nn.Linear(self.hidden_dim, 1)
        self.hidden = self.init_hidden()

    def init_hidden(self) -> State:
        return torch.zeros(1, 1, self.hidden_dim), torch.zeros(1, 1, self.hidden_dim)

    def forward(self, seq: Tensor) -> Tensor:
        out, self.hidden = self.lstm(seq.view(len(seq), 1, -1), self.hidden)
        return self.linear(out.view(len(seq), -1))


class TutorialTagger(nn.Module):
    """Takes one sentence (time,) of tokens: its view makes a batch of 1, so it works at batch 1 only."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 7, num_layers=2)
        self.to_tag = nn.Linear(7, 4)
        self.hidden = self.init_hidden()

    def init_hidden(self) -> State:
        return _zeros(2, 1, 7)

    def forward(self, sentence: Tensor) -> Tensor:
        embedded = self.embeddings(sentence).view(len(sentence), 1, -1)
        out, self.hidden = self.lstm(embedded, self.hidden)
        return F.log_softmax(self.to_tag(out.view(len(sentence), -1)), dim=1)


class KeptState(nn.Module):
    """Batch first; the caller makes the state for each batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 9, num_layers=2, batch_first=True)
        self.head = nn.Linear(9, 2)
        self.init_hidden(1)

    def init_hidden(self, batch: int) -> None:
        self.hidden = _zeros(2, batch, 9)

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.lstm(x, self.hidden)
        return self.head(out)


class StateFromNone(nn.Module):
    """No state at first: nn.LSTM starts from zeros then."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 1)
        self.state: State | None = None

    def forward(self, x: Tensor) -> Tensor:
        out, self.state = self.lstm(x, self.state)
        return torch.tanh(self.head(out))


class KeptGRU(nn.Module):
    """A GRU with its hidden state in an attribute, time first."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8)
        self.head = nn.Linear(8, 2)
        self.hidden = torch.zeros(1, 1, 8)

    def forward(self, x: Tensor) -> Tensor:
        out, self.hidden = self.gru(x, self.hidden)
        return self.head(out)


class BufferState(nn.Module):
    """The state is two registered buffers that forward replaces."""

    h: Tensor
    c: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 7, batch_first=True)
        self.head = nn.Linear(7, 3)
        self.register_buffer("h", torch.zeros(1, 1, 7), persistent=False)
        self.register_buffer("c", torch.zeros(1, 1, 7), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        out, (self.h, self.c) = self.lstm(x, (self.h, self.c))
        return self.head(out[:, -1])


class CopiedBufferState(nn.Module):
    """The same with the new state copied into the buffers in place."""

    h: Tensor
    c: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2)
        self.head = nn.Linear(5, 2)
        self.register_buffer("h", torch.zeros(2, 1, 5))
        self.register_buffer("c", torch.zeros(2, 1, 5))

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.lstm(x, (self.h.clone(), self.c.clone()))
        self.h.copy_(h.detach())
        self.c.copy_(c.detach())
        return self.head(out)


class DetachedState(nn.Module):
    """Truncated backpropagation: the state that is kept is cut from the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 2)
        self.hidden = _zeros(1, 1, 8)

    def forward(self, x: Tensor) -> Tensor:
        out, hidden = self.lstm(x, self.hidden)
        self.hidden = tuple(part.detach() for part in hidden)
        return self.head(out)


class Memory(nn.Module):
    """A stateful part for other modules, with its own reset."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.reset(1)

    def reset(self, batch: int) -> None:
        self.hx, self.cx = _zeros(1, batch, self.lstm.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out, (self.hx, self.cx) = self.lstm(x, (self.hx, self.cx))
        return out


class NestedState(nn.Module):
    """Two stateful parts inside: four tensors are kept, two modules down."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(3, 6)
        self.memories = nn.Sequential(Memory(6), nn.Tanh(), Memory(6))
        self.leave = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.memories(self.enter(x)))


class ListedStates(nn.Module):
    """The states of two LSTMs in one list, with an item replaced at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(3, 5, batch_first=True), nn.LSTM(5, 5, batch_first=True)])
        self.states: list[State | None] = [None, None]

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x, self.states[index] = layer(x, self.states[index])
        return x


def _set_hidden(module: nn.Module, batch: int) -> None:
    assert isinstance(module, TutorialForecaster | TutorialTagger)
    assert batch == 1
    module.hidden = module.init_hidden()


def _set_kept(module: nn.Module, batch: int) -> None:
    assert isinstance(module, KeptState)
    module.init_hidden(batch)


def _set_from_none(module: nn.Module, batch: int) -> None:
    assert isinstance(module, StateFromNone)
    module.state = _zeros(1, batch, 6)


def _set_gru(module: nn.Module, batch: int) -> None:
    assert isinstance(module, KeptGRU)
    module.hidden = torch.zeros(1, batch, 8)


def _set_buffers(module: nn.Module, batch: int) -> None:
    assert isinstance(module, BufferState | CopiedBufferState)
    module.h, module.c = _zeros(module.lstm.num_layers, batch, module.lstm.hidden_size)


def _set_detached(module: nn.Module, batch: int) -> None:
    assert isinstance(module, DetachedState)
    module.hidden = _zeros(1, batch, 8)


def _set_nested(module: nn.Module, batch: int) -> None:
    for part in module.modules():
        if isinstance(part, Memory):
            part.reset(batch)


def _set_listed(module: nn.Module, batch: int) -> None:
    assert isinstance(module, ListedStates)
    module.states = [_zeros(1, batch, 5), _zeros(1, batch, 5)]


def _one_series(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(time, 3),)


def _one_sentence(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).tokens(20, time),)


X = {"x": BATCH_TIME}

ARCHITECTURES = (
    Architecture(
        "tutorial_forecaster",
        seeded(TutorialForecaster),
        _one_series,
        {"seq": {0: "time"}},
        1,
        fixed_batch=True,
        set_state=_set_hidden,
        states=2,
    ),
    Architecture(
        "tutorial_tagger",
        seeded(TutorialTagger),
        _one_sentence,
        {"sentence": {0: "time"}},
        2,
        fixed_batch=True,
        set_state=_set_hidden,
        states=2,
    ),
    Architecture("kept_state", seeded(KeptState), signal(3), X, 2, set_state=_set_kept, states=2),
    Architecture("state_from_none", seeded(StateFromNone), signal(4), X, 1, set_state=_set_from_none, states=2),
    Architecture(
        "kept_gru",
        seeded(KeptGRU),
        signal_time_first(4),
        {"x": TIME_BATCH},
        0,
        other_nodes={"GRU": 1},
        set_state=_set_gru,
        states=1,
    ),
    Architecture("buffer_state", seeded(BufferState), signal(3), X, 1, set_state=_set_buffers, states=2),
    Architecture(
        "copied_buffer_state",
        seeded(CopiedBufferState),
        signal_time_first(3),
        {"x": TIME_BATCH},
        2,
        set_state=_set_buffers,
        states=2,
    ),
    Architecture("detached_state", seeded(DetachedState), signal(4), X, 1, set_state=_set_detached, states=2),
    Architecture("nested_state", seeded(NestedState), signal(3), X, 2, set_state=_set_nested, states=4),
    Architecture("listed_states", seeded(ListedStates), signal(3), X, 2, set_state=_set_listed, states=4),
)
