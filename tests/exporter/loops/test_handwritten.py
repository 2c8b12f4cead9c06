"""GRUs in the user's own code: one GRU node where the body is exactly that of nn.GRU, and a Scan where it is not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx

FEATURES, HIDDEN = 3, 5


class Gated(nn.Module):
    """A loop over `step`, from h to the next h."""

    def __init__(self) -> None:
        super().__init__()
        self.x3, self.h3, self.both = (
            nn.Linear(FEATURES, 3 * HIDDEN),
            nn.Linear(HIDDEN, 3 * HIDDEN),
            nn.Linear(FEATURES + HIDDEN, 2 * HIDDEN),
        )
        self.x1, self.h1 = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def parts(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        (xr, xz, xn), (hr, hz, hn) = self.x3(x).chunk(3, -1), self.h3(h).chunk(3, -1)
        return torch.sigmoid(xr + hr), torch.sigmoid(xz + hz), xn, hn

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], HIDDEN)
        steps = []
        for t in range(x.shape[1]):
            h = self.step(x[:, t], h)
            steps.append(h)
        return torch.stack(steps, 1)


class Mixed(Gated):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, hn = self.parts(x, h)
        return (1 - z) * torch.tanh(xn + r * hn) + z * h


class Opposite(Gated):
    """z is how much is new, and not how much is kept."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, hn = self.parts(x, h)
        return (1 - z) * h + z * torch.tanh(xn + r * hn)


class Moved(Gated):
    """Gates of one matrix for x and h, and the form that torch computes."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        z, r = self.both(torch.cat([x, h], 1)).chunk(2, 1)
        n = torch.tanh(torch.sigmoid(r) * self.h1(h) + self.x1(x))
        return n + torch.sigmoid(z) * (h - n)


class ResetBefore(Gated):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, _ = self.parts(x, h)
        return (1 - z) * torch.tanh(xn + self.h1(r * h)) + z * h


class OtherGate(Gated):
    """What is new is weighed by r: no GRU, though its parts look alike."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, hn = self.parts(x, h)
        return (1 - r) * torch.tanh(xn + r * hn) + z * h


class StateOutside(Gated):
    """A part of h that r does not multiply."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, hn = self.parts(x, h)
        return (1 - z) * torch.tanh(xn + self.h1(h) + r * hn) + z * h


class OtherMixture(Gated):
    """2 - z instead of 1 - z."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, hn = self.parts(x, h)
        return (2 - z) * torch.tanh(xn + r * hn) + z * h


ORDINARY = (Opposite, OtherGate)
KINDS = {Mixed: "GRU", Opposite: "GRU", Moved: "GRU"} | dict.fromkeys(
    (ResetBefore, OtherGate, StateOutside, OtherMixture), "Scan"
)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ORDINARY else pytest.mark.slow) for kind in KINDS]
)
def test_a_gru_becomes_one_node_and_all_else_a_scan(kind: type[Gated], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=axes)
    operators = {node.op_type for node in onnx.load(path).graph.node} & {"GRU", "Scan", "LSTM", "RNN"}
    assert operators == {KINDS[kind]}
    model = lstm_onnx.load(path, "cpu")
    for batch, time in ((1, 1), (4, 2), (3, 40)):
        x = torch.randn(batch, time, FEATURES)
        torch.testing.assert_close(
            torch.from_numpy(model.run({"x": x.numpy()})["output"]), module(x).detach(), rtol=1e-4, atol=1e-5
        )


def test_its_states_stream(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Mixed().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=axes, states="explicit")
    stream, x = lstm_onnx.load(path, "cpu").stream(batch=2), torch.randn(2, 9, FEATURES)
    pieces = [stream(part) for part in (x[:, :4], x[:, 4:5], x[:, 5:])]
    torch.testing.assert_close(torch.cat(pieces, 1), module(x).detach(), rtol=1e-4, atol=1e-5)
