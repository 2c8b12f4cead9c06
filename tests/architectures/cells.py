"""Single steps with nn.LSTMCell."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.architectures.architecture import BATCH, BATCH_TIME, Architecture, Draw, Inputs, seeded, signal

State = tuple[Tensor, Tensor]


class CellStep(nn.Module):
    """One step: the row of each stream and its state in, an answer and the next state out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 9)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, c = self.cell(x, state)
        return self.head(h), (h, c)


class FirstStep(nn.Module):
    """One step from zeros: the cell is called without states, and its cell state is used too."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 6)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat(self.cell(x), dim=1))


class StackedStep(nn.Module):
    """Two cells on top of each other without biases below, their states as four arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 5)
        self.low = nn.LSTMCell(5, 7, bias=False)
        self.high = nn.LSTMCell(7, 6)
        self.head = nn.Linear(6, 12)

    def forward(self, token: Tensor, h1: Tensor, c1: Tensor, h2: Tensor, c2: Tensor) -> tuple[Tensor, ...]:
        h1, c1 = self.low(self.embed(token), (h1, c1))
        h2, c2 = self.high(h1, (h2, c2))
        return self.head(h2).log_softmax(1), h1, c1, h2, c2


class KeptCell(nn.Module):
    """A controller that keeps its cell's state in two attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, 8)
        self.head = nn.Sequential(nn.Linear(8, 2), nn.Tanh())
        self.hx = torch.zeros(1, 8)
        self.cx = torch.zeros(1, 8)

    def forward(self, observation: Tensor) -> Tensor:
        self.hx, self.cx = self.cell(observation, (self.hx, self.cx))
        return self.head(self.hx)


class CellAfterLSTM(nn.Module):
    """An LSTM reads the source, and one cell makes two steps of the answer from its end."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.LSTM(4, 7, batch_first=True)
        self.write = nn.LSTMCell(7, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, c) = self.read(x)
        h1, c1 = self.write(h[-1], (h[-1], c[-1]))
        h2, _ = self.write(h1, (h1, c1))
        return torch.stack([self.head(h1), self.head(h2)], dim=1)


def _set_cell(module: nn.Module, batch: int) -> None:
    assert isinstance(module, KeptCell)
    module.hx, module.cx = torch.zeros(batch, 8), torch.zeros(batch, 8)


def _step_and_state(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    return draw.floats(batch, 4), (draw.floats(batch, 9).tanh(), draw.floats(batch, 9))


def _first_step(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(batch, 4),)


def _token_and_states(batch: int, time: int) -> Inputs:
    draw = Draw(batch, time)
    h1, c1 = draw.floats(batch, 7).tanh(), draw.floats(batch, 7)
    h2, c2 = draw.floats(batch, 6).tanh(), draw.floats(batch, 6)
    return draw.tokens(12, batch), h1, c1, h2, c2


def _observation(batch: int, time: int) -> Inputs:
    return (Draw(batch, time).floats(batch, 3),)


ARCHITECTURES = (
    Architecture(
        "cell_step",
        seeded(CellStep),
        _step_and_state,
        {"x": BATCH, "state": (BATCH, BATCH)},
        0,
        cell_calls=1,
        fixed_time=True,
    ),
    Architecture("first_cell_step", seeded(FirstStep), _first_step, {"x": BATCH}, 0, cell_calls=1, fixed_time=True),
    Architecture(
        "stacked_cell_step",
        seeded(StackedStep),
        _token_and_states,
        dict.fromkeys(("token", "h1", "c1", "h2", "c2"), BATCH),
        0,
        cell_calls=2,
        fixed_time=True,
    ),
    Architecture(
        "kept_cell",
        seeded(KeptCell),
        _observation,
        {"observation": BATCH},
        0,
        cell_calls=1,
        fixed_time=True,
        set_state=_set_cell,
        states=2,
    ),
    Architecture("cell_after_lstm", seeded(CellAfterLSTM), signal(4), {"x": BATCH_TIME}, 1, cell_calls=2),
)
