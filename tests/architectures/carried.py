"""Models that take their LSTM's state as an argument and return it, and models that make their own first state."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.architectures.architecture import (
    BATCH,
    BATCH_TIME,
    STATE,
    TIME_BATCH,
    Architecture,
    Draw,
    Inputs,
    seeded,
    signal,
    signal_time_first,
)

State = tuple[Tensor, Tensor]


class Policy(nn.Module):
    """Action scores from observations, an MLP on the LSTM; the state goes in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 10, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, observation: Tensor, state: State) -> tuple[Tensor, State]:
        out, (h, c) = self.lstm(observation, state)
        return self.mlp(out), (h, c)


class ActorCritic(nn.Module):
    """Policy and value as a dict, the state as two arguments, episodes that end cleared before the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 7), nn.ELU())
        self.lstm = nn.LSTM(7, 9)
        self.actor = nn.Linear(9, 4)
        self.critic = nn.Linear(9, 1)

    def forward(self, observation: Tensor, done: Tensor, h: Tensor, c: Tensor) -> dict[str, Tensor]:
        keep = (~done).to(h.dtype).view(1, -1, 1)
        out, (h, c) = self.lstm(self.body(observation), (h * keep, c * keep))
        return {"policy": self.actor(out).softmax(-1), "value": self.critic(out).squeeze(-1), "h": h, "c": c}


class LayerwiseStates(nn.Module):
    """Two LSTMs of different sizes with a list of one (h, c) each."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList([nn.LSTM(3, 6, batch_first=True), nn.LSTM(6, 8, batch_first=True)])
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, states: list[State]) -> tuple[Tensor, list[State]]:
        last = []
        for lstm, state in zip(self.lstms, states, strict=True):
            x, new = lstm(x, state)
            last.append(new)
        return self.head(x), last


class StackedState(nn.Module):
    """A voice detector for chunks: h and c in one tensor (2, batch, hidden), a softness that never changes size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3, padding=1)
        self.lstm = nn.LSTM(6, 8)
        self.head = nn.Conv1d(8, 1, 1)

    def forward(self, chunk: Tensor, state: Tensor, softness: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.conv(chunk)).permute(2, 0, 1)
        h, c = torch.split(state, 1)
        out, new = self.lstm(x, (h, c))
        score = self.head(out.permute(1, 2, 0)).squeeze(1)
        return torch.sigmoid(score / softness.abs().add(1)), torch.cat(new)


class OptionalState(nn.Module):
    """The state may be left out, and is here: zeros are then made like the input."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 7, num_layers=2, batch_first=True)
        self.head = nn.Linear(7, 2)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        if state is None:
            zeros = x.new_zeros(self.lstm.num_layers, x.shape[0], self.lstm.hidden_size)
            state = (zeros, zeros)
        out, state = self.lstm(x, hx=state)
        return self.head(out), state


class MadeZeros(nn.Module):
    """Zeros made by torch.zeros with the sizes and the device of the input, for a BiLSTM, time first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.hidden = 2, 5
        self.lstm = nn.LSTM(3, self.hidden, self.layers, bidirectional=True)
        self.head = nn.Linear(2 * self.hidden, 2)

    def init_hidden(self, batch: int, device: torch.device) -> State:
        shape = (2 * self.layers, batch, self.hidden)
        return torch.zeros(*shape, device=device), torch.zeros(*shape, device=device)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(x, self.init_hidden(x.size(1), x.device))
        return self.head(out)


class LearnedStart(nn.Module):
    """The first state is learned and the same for each row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, num_layers=2, batch_first=True)
        self.h0 = nn.Parameter(torch.randn(2, 1, 8) * 0.5)
        self.c0 = nn.Parameter(torch.randn(2, 1, 8) * 0.5)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        start = self.h0.expand(-1, batch, -1).contiguous(), self.c0.expand(-1, batch, -1).contiguous()
        out, _ = self.lstm(x, start)
        return self.head(out)


class ConditionedStart(nn.Module):
    """A caption's LSTM: the first state is computed from the features of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.to_h = nn.Linear(6, 9)
        self.to_c = nn.Linear(6, 9)
        self.embed = nn.Embedding(15, 7)
        self.lstm = nn.LSTM(7, 9, batch_first=True)
        self.head = nn.Linear(9, 15)

    def forward(self, features: Tensor, caption: Tensor) -> Tensor:
        start = [torch.tanh(self.to_h(features)).unsqueeze(0), self.to_c(features).unsqueeze(0)]
        out, _ = self.lstm(self.embed(caption), (start[0], start[1]))
        return self.head(out)


class ProjectedState(nn.Module):
    """A projected LSTM of two layers with its state in and out: h is narrower than c."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 10, num_layers=2, proj_size=3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        out, state = self.lstm(x, state)
        return self.head(out), state


def _state(draw: Draw, layers: int, hidden: int, projected: int = 0) -> State:
    return draw.floats(layers, draw.batch, projected or hidden).tanh(), draw.floats(layers, draw.batch, hidden)


def _observation(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 5), _state(draw, 1, 10)


def _episode(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    h, c = _state(draw, 1, 9)
    return {"observation": draw.floats(time, batch, 5), "done": draw.floats(batch) > 0.5, "h": h, "c": c}


def _layerwise(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, time, 3), [_state(draw, 1, 6), _state(draw, 1, 8)]


def _chunk(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, 4, time), draw.floats(2, batch, 8).tanh(), draw.floats(1)


def _caption(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, 6), draw.tokens(15)


def _projected(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(time, batch, 4), _state(draw, 2, 10, 3)


ARCHITECTURES = (
    Architecture("policy", seeded(Policy), _observation, {"observation": BATCH_TIME, "state": (STATE, STATE)}, 1),
    Architecture(
        "actor_critic",
        seeded(ActorCritic),
        _episode,
        {"observation": TIME_BATCH, "done": BATCH, "h": STATE, "c": STATE},
        1,
    ),
    Architecture(
        "layerwise_states",
        seeded(LayerwiseStates),
        _layerwise,
        {"x": BATCH_TIME, "states": [(STATE, STATE), (STATE, STATE)]},
        2,
    ),
    Architecture(
        "stacked_state",
        seeded(StackedState),
        _chunk,
        {"chunk": {0: "batch", 2: "time"}, "state": STATE, "softness": None},
        1,
    ),
    Architecture("optional_state", seeded(OptionalState), signal(4), {"x": BATCH_TIME}, 2),
    Architecture("made_zeros", seeded(MadeZeros), signal_time_first(3), {"x": TIME_BATCH}, 2),
    Architecture("learned_start", seeded(LearnedStart), signal(3), {"x": BATCH_TIME}, 2),
    Architecture(
        "conditioned_start", seeded(ConditionedStart), _caption, {"features": BATCH, "caption": BATCH_TIME}, 1
    ),
    Architecture(
        "projected_state",
        seeded(ProjectedState),
        _projected,
        {"x": TIME_BATCH, "state": (STATE, STATE)},
        0,
        scan_nodes=2,
    ),
)
