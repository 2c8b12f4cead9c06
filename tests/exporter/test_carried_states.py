"""States that a forward's caller carries: found, also of several layers and with rows that start anew, and streamed."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import lstm_onnx

pytestmark = pytest.mark.sweep(18)

BATCH, STEPS, FEATURES, SIZE = 3, 6, 5, 4
X = {0: "time", 1: "batch"}
ROWS = {1: "batch"}


class SlicedLayers(nn.Module):
    """A list of LSTMs; each takes its layer of the states, which are joined again."""

    axes = (X, ROWS, ROWS)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(FEATURES, SIZE), nn.LSTM(SIZE, SIZE)])

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ends = []
        for index, layer in enumerate(self.layers):
            x, end = layer(x, (h[index : index + 1], c[index : index + 1]))
            ends.append(end)
        return x, torch.cat([end[0] for end in ends]), torch.cat([end[1] for end in ends])


class CellsOfLayers(nn.Module):
    """Cells over the steps; lists of states are taken from stacks, and stacked again."""

    axes = (X, (ROWS, ROWS))

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(FEATURES, SIZE), nn.LSTMCell(SIZE, SIZE)])

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = (list(torch.unbind(part)) for part in state)
        outputs = []
        for step in range(x.shape[0]):
            value = x[step]
            for index, cell in enumerate(self.cells):
                h[index], c[index] = cell(value, (h[index], c[index]))
                value = h[index]
            outputs.append(value)
        return torch.stack(outputs), (torch.stack(h), torch.stack(c))


class JointState(nn.Module):
    """h and c side by side in one tensor."""

    axes = (X, ROWS)

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, SIZE)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h, c = state.chunk(2, -1)
        y, (h, c) = self.lstm(x, (h.contiguous(), c.contiguous()))
        return y, torch.cat([h, c], -1)


class BatchFirst(nn.Module):
    """States with the batch before the layers, outside of the module."""

    axes = (X, {0: "batch"}, {0: "batch"})

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, SIZE, 2)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(x, (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous()))
        return y, h.transpose(0, 1), c.transpose(0, 1)


class Episodes(nn.Module):
    """A GRU over single steps, whose state is zero where an episode has ended before the step."""

    axes = (X, ROWS, X)

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, SIZE, 2)

    def forward(self, x: Tensor, state: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for step in range(x.size(0)):
            y, state = self.gru(x[step].unsqueeze(0), state * (1.0 - done[step].unsqueeze(0)))
            outputs.append(y)
        return torch.cat(outputs, dim=0), state


class EpisodesOfCells(nn.Module):
    """The same with a cell, and a state without an axis of layers."""

    axes = (X, {0: "batch"}, X)

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, SIZE)

    def forward(self, x: Tensor, h: Tensor, done: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for step in range(x.size(0)):
            h = self.cell(x[step], torch.where(done[step] > 0, torch.zeros_like(h), h))
            outputs.append(h)
        return torch.stack(outputs), h


def inputs_of(module: nn.Module, steps: int, batch: int) -> tuple[Any, ...]:
    """Draw inputs; states are not zero, and a third of the steps starts an episode."""
    draw = torch.Generator().manual_seed(steps * batch)
    x = torch.randn(steps, batch, FEATURES, generator=draw)
    layers = torch.randn(2, batch, SIZE, generator=draw)
    done = (torch.rand(steps, batch, 1, generator=draw) < 0.3).float()
    match module:
        case SlicedLayers():
            return x, layers, layers.flip(0)
        case CellsOfLayers():
            return x, (layers, layers.flip(0))
        case JointState():
            return x, torch.randn(1, batch, 2 * SIZE, generator=draw)
        case BatchFirst():
            return x, torch.randn(batch, 2, SIZE, generator=draw), torch.randn(batch, 2, SIZE, generator=draw)
        case Episodes():
            return x, layers, done
    return x, layers[0], done


PAIRS: dict[type[nn.Module], dict[str, str]] = {
    SlicedLayers: {"h": "output.1", "c": "output.2"},
    CellsOfLayers: {"state.0": "output.1.0", "state.1": "output.1.1"},
    JointState: {"state": "output.1"},
    BatchFirst: {"h": "output.1", "c": "output.2"},
    Episodes: {"state": "output.1"},
    EpisodesOfCells: {"h": "output.1"},
}


@pytest.mark.parametrize("kind", PAIRS, ids=lambda kind: kind.__name__)
def test_states_of_layers_and_episodes_are_paired_and_stream(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "a.onnx"
    axes: Any = kind.axes
    result = lstm_onnx.export(module, path, example_inputs=inputs_of(module, STEPS, BATCH), dynamic_shapes=axes)
    assert result.states == PAIRS[kind]
    inputs = inputs_of(module, 9, 2)
    with torch.no_grad():
        wanted = [tensor.numpy() for tensor in pytree.tree_leaves(module(*inputs))]
    with lstm_onnx.load(path, provider="cpu", threads=1) as model:
        feeds = dict(zip(model.inputs, (tensor.numpy() for tensor in pytree.tree_leaves(inputs)), strict=True))
        for cuts in ((0, 9), (0, 1, 2, 7, 9)):
            stream = model.stream(batch=2)
            stream.state = {name: feeds[name] for name in PAIRS[kind]}
            pieces = []
            for start, end in itertools.pairwise(cuts):
                chunk = {name: feed[start:end] for name, feed in feeds.items() if name not in PAIRS[kind]}
                pieces.append(stream.run(chunk)["output.0"])
            np.testing.assert_allclose(np.concatenate(pieces), wanted[0], rtol=1e-5, atol=1e-6)
            for name, array in zip(PAIRS[kind], wanted[1:], strict=True):
                np.testing.assert_allclose(stream.state[name], array, rtol=1e-5, atol=1e-6)


class Exchanged(SlicedLayers):
    """The layers' final states in another order than the initial ones."""

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, h, c = super().forward(x, h, c)
        return x, h.flip(0), torch.cat([c[1:], c[:1]])


class JointExchanged(JointState):
    """c before h in the result."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = super().forward(x, state)
        return y, torch.cat([state[..., SIZE:], state[..., :SIZE]], -1)


class Transposed(nn.Module):
    """As many layers as numbers in each, and the two exchanged in the result."""

    axes = (X, ROWS)

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, 2, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(x, h)
        return y, h.transpose(0, 2)


class ScaledStart(nn.Module):
    """Features are the start, scaled; the final state is no such features."""

    axes = (X, ROWS)

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.scale = nn.GRU(FEATURES, SIZE, 2), nn.Parameter(torch.rand(SIZE) + 2)

    def forward(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(x, features * self.scale)


@pytest.mark.parametrize("kind", [Exchanged, JointExchanged, Transposed, ScaledStart], ids=lambda kind: kind.__name__)
def test_what_would_be_another_state_in_the_next_call_is_not_paired(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module: Any = kind().eval()
    layers = torch.randn(2, BATCH, SIZE)
    starts = {
        Exchanged: (layers, layers),
        JointExchanged: (torch.randn(1, BATCH, 2 * SIZE),),
        Transposed: (layers[..., :2],),
    }
    start = starts.get(kind, (layers,))
    example = (torch.randn(STEPS, BATCH, FEATURES), *start)
    result = lstm_onnx.export(module, tmp_path / "a.onnx", example_inputs=example, dynamic_shapes=module.axes)
    assert not result.states


def test_a_state_that_is_viewed_in_its_own_shape_is_paired(tmp_path: Path) -> None:
    """A step of agents in a batch: whoever calls it may have given the state another shape."""

    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.GRUCell(FEATURES, SIZE), nn.Linear(SIZE, 2)

        def forward(self, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            h = self.cell(x, hidden.reshape(-1, SIZE))
            return self.head(h), h

    module, example = Agent().eval(), (torch.randn(BATCH, FEATURES), torch.zeros(BATCH, SIZE))
    axes = ({0: "batch"}, {0: "batch"})
    result = lstm_onnx.export(module, tmp_path / "a.onnx", example_inputs=example, dynamic_shapes=axes)
    assert result.states == {"hidden": "output.1"}
    stream, h = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1).stream(batch=2), torch.zeros(2, SIZE)
    for x in torch.randn(3, 2, FEATURES):
        with torch.no_grad():
            y, h = module(x, h)
        np.testing.assert_allclose(stream.run({"x": x.numpy()})["output.0"], y.numpy(), rtol=1e-5, atol=1e-6)


class KeptSteps(nn.Module):
    """A convolution whose caller keeps the last two steps for the next chunk."""

    axes = ({0: "batch", 1: "time"}, {0: "batch"}, {1: "batch"})

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(FEATURES, SIZE, 3), nn.GRU(SIZE, SIZE, batch_first=True)

    def forward(self, x: Tensor, before: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        steps = torch.cat([before, x.transpose(1, 2)], 2)
        y, h = self.gru(self.conv(steps).transpose(1, 2), h)
        return y, steps[:, :, -2:], h


@pytest.mark.parametrize("states", ["zero", "explicit"])
def test_what_a_caller_keeps_for_a_convolution_is_a_state(states: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = KeptSteps().eval()
    x = torch.randn(BATCH, 9, FEATURES)
    example = (x, torch.randn(BATCH, FEATURES, 2), torch.randn(1, BATCH, SIZE))
    result = lstm_onnx.export(
        module, tmp_path / "a.onnx", example_inputs=example, dynamic_shapes=module.axes, states=states
    )
    assert result.states == {"before": "output.1", "h": "output.2"}
    stream = lstm_onnx.load(tmp_path / "a.onnx", provider="cpu", threads=1).stream(batch=BATCH)
    found = [stream.run({"x": x[:, start:end].numpy()})["output.0"] for start, end in ((0, 1), (1, 4), (4, 9))]
    with torch.no_grad():
        wanted = module(x, torch.zeros_like(example[1]), torch.zeros_like(example[2]))[0]
    np.testing.assert_allclose(np.concatenate(found, 1), wanted.numpy(), rtol=1e-5, atol=1e-6)


class RunningSum(nn.Module):
    """Its caller would add the sum of a chunk to what was returned for the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, SIZE, batch_first=True)

    def forward(self, x: Tensor, total: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = self.gru(x, h)
        sums = total[:, None] + x.cumsum(1)
        return torch.cat([y, sums], -1), sums[:, -1], h


class PassedOn(RunningSum):
    """The features of a speaker, which stay what they are."""

    def forward(self, x: Tensor, total: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = self.gru(x, h)
        features = nn.functional.normalize(total, dim=-1)
        return torch.cat([y, features[:, None].expand(-1, x.shape[1], -1)], -1), features, h


@pytest.mark.parametrize(("kind", "paired"), [(RunningSum, {"total", "h"}), (PassedOn, {"h"})])
def test_inputs_that_are_returned_are_states_where_carrying_them_counts(
    kind: type[RunningSum], paired: set[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    example = (torch.randn(BATCH, 9, FEATURES), torch.randn(BATCH, FEATURES), torch.randn(1, BATCH, SIZE))
    axes = ({0: "batch", 1: "time"}, {0: "batch"}, {1: "batch"})
    result = lstm_onnx.export(
        kind().eval(), tmp_path / "a.onnx", example_inputs=example, dynamic_shapes=axes, states="explicit"
    )
    assert result.states.keys() == paired


class TwoRates(nn.Module):
    """Two frames of one input for each step of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES + 6, SIZE, batch_first=True)

    def forward(self, x: Tensor, frames: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(torch.cat([x, frames.reshape(x.shape[0], x.shape[1], 6)], -1), h)
        return y, h


def test_an_axis_that_follows_from_time_is_cut_with_it(tmp_path: Path) -> None:
    example = (torch.randn(BATCH, STEPS, FEATURES), torch.randn(BATCH, 2 * STEPS, 3), torch.randn(1, BATCH, SIZE))
    axes = ({0: "batch", 1: "time"}, {0: "batch", 1: "2*time"}, {1: "batch"})
    result = lstm_onnx.export(TwoRates().eval(), tmp_path / "a.onnx", example_inputs=example, dynamic_shapes=axes)
    assert result.states == {"h": "output.1"}
