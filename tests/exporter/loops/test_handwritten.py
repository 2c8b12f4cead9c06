"""Cells in the user's own code: one node where the body is exactly that of the operator, and a Scan where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx

pytestmark = pytest.mark.sweep(12)

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


class MinimalGated(Gated):
    """One gate for both, in the form in which h moves to n."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        f = torch.sigmoid(self.x1(x) + self.h1(h))
        return h + f * (torch.tanh(self.x3(x)[:, :HIDDEN] + self.h1(h * f)) - h)


class ResetTwice(Gated):
    """What r has multiplied enters n twice, once by itself: no product with R alone."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        r, z, xn, _ = self.parts(x, h)
        return (1 - z) * torch.tanh(xn + self.h1(r * h) + h) + z * h


class Elman(Gated):
    """The input's product is computed before the loop, and h is scaled."""

    def forward(self, x: Tensor) -> Tensor:
        h, steps, before = x.new_zeros(x.shape[0], HIDDEN), [], self.x1(x)
        for t in range(x.shape[1]):
            h = torch.tanh(before[:, t] + self.h1(0.5 * h))
            steps.append(h)
        return torch.stack(steps, 1)


class Rectified(Gated):
    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.relu(self.x1(x) - self.h1(h))


class ScaledAfter(Gated):
    """What is scaled after the tanh is no RNN."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return 0.9 * torch.tanh(self.x1(x) + self.h1(h))


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


class Peepholes(Gated):
    """Gates that see c, each unit its own; `output_sees` says which c the output gate sees."""

    output_sees = "new"

    def __init__(self) -> None:
        super().__init__()
        self.x4, self.h4 = nn.Linear(FEATURES, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN)
        self.peep = nn.ParameterList(nn.Parameter(torch.randn(HIDDEN)) for _ in range(3))

    def seen(self, place: int, c: Tensor) -> Tensor:
        return self.peep[place] * c

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], HIDDEN)
        steps = []
        for t in range(x.shape[1]):
            i, f, g, o = (self.x4(x[:, t]) + self.h4(h)).chunk(4, -1)
            before, i, f = c, torch.sigmoid(i + self.seen(0, c)), torch.sigmoid(f + self.seen(1, c))
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + self.seen(2, c if self.output_sees == "new" else before)) * torch.tanh(c)
            steps.append(h)
        return torch.stack(steps, 1)


class OldPeepholes(Peepholes):
    """ONNX's output gate sees the new c."""

    output_sees = "old"


class MixedPeepholes(Peepholes):
    """Gates that see the c of all units."""

    def seen(self, place: int, c: Tensor) -> Tensor:
        return self.h1(c) * self.peep[place]


class Stacked(Gated):
    """Two layers in one loop, the input's products computed before it, of which each gate has a part."""

    def __init__(self) -> None:
        super().__init__()
        self.x4, self.h4 = nn.Linear(FEATURES, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = c = top = x.new_zeros(x.shape[0], HIDDEN)
        steps = []
        of_i, of_f, of_g, of_o = self.x4(x).chunk(4, -1)
        for t in range(x.shape[1]):
            i, f, g, o = self.h4(h).chunk(4, -1)
            c = torch.sigmoid(of_f[:, t] + f) * c + torch.sigmoid(of_i[:, t] + i) * torch.tanh(of_g[:, t] + g)
            h = torch.sigmoid(of_o[:, t] + o) * torch.tanh(c)
            top = torch.tanh(self.h1(h) + self.h3(top)[:, :HIDDEN])
            steps.append(top)
        return torch.stack(steps, 1)


class OfIntegers(Gated):
    """PyTorch converts what h is added to."""

    def forward(self, x: Tensor) -> Tensor:
        numbers, h, steps = (3 * x).long(), x.new_zeros(x.shape[0], HIDDEN), []
        for t in range(x.shape[1]):
            h = torch.tanh(numbers[:, t, :1] * self.h1.bias + self.h1(h))
            steps.append(h)
        return torch.stack(steps, 1)


class OneRowForAll(Gated):
    """The input has one row, and h one for each sequence."""

    def forward(self, x: Tensor) -> Tensor:
        first, h, steps = x[:1], x.mean(1)[:, :1].expand(-1, HIDDEN), []
        for t in range(x.shape[1]):
            h = torch.tanh(self.x1(first[:, t]) + self.h1(h))
            steps.append(h)
        return torch.stack(steps, 1)


ORDINARY = (OtherGate, ResetBefore, Stacked, OfIntegers, OneRowForAll)
KINDS: dict[type[Gated], tuple[str, ...]] = {
    Mixed: ("GRU",),
    Opposite: ("GRU",),
    Moved: ("GRU",),
    ResetBefore: ("GRU",),
    MinimalGated: ("GRU",),
    Elman: ("RNN",),
    Rectified: ("RNN",),
    Peepholes: ("LSTM",),
    Stacked: ("LSTM", "RNN"),
    **dict.fromkeys(
        (ResetTwice, OtherGate, StateOutside, OtherMixture, ScaledAfter, OldPeepholes, MixedPeepholes), ("Scan",)
    ),
    **dict.fromkeys((OfIntegers, OneRowForAll), ("Scan",)),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ORDINARY else pytest.mark.slow) for kind in KINDS]
)
def test_a_cell_becomes_one_node_and_all_else_a_scan(kind: type[Gated], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=axes)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert tuple(name for name in operators if name in ("GRU", "Scan", "LSTM", "RNN")) == KINDS[kind]
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


def test_peepholes_and_the_place_of_the_reset_gate_are_in_the_file_and_a_wrong_one_is_rejected(tmp_path: Path) -> None:
    """P is in ONNX's order: input, output, forget."""
    torch.manual_seed(0)
    module, path = Peepholes().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=axes)
    (stored,) = [onnx.numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer if "/P" in item.name]
    np.testing.assert_array_equal(stored[0], torch.cat([module.peep[at] for at in (0, 2, 1)]).detach().numpy())
    report = lstm_onnx.verify(module, path)
    assert report, str(report)
    outcomes = {mutant.name: mutant.outcome for mutant in report.mutants}
    assert outcomes["peepholes dropped"] == outcomes["peepholes misordered"] == "rejected"


@pytest.mark.parametrize(
    ("kind", "target", "operator"),
    [
        (Peepholes, "openvino", "Scan"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((Peepholes, "tract", "Scan"), (ResetBefore, "tract", "Scan"), (ResetBefore, "openvino", "GRU"))
        ),
    ],
)
def test_a_file_for_an_engine_has_a_form_that_it_computes(
    kind: type[Gated], target: str, operator: str, tmp_path: Path
) -> None:
    """OpenVINO ignores peepholes."""
    torch.manual_seed(0)
    module, path = kind().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    x = torch.randn(2, 6, FEATURES)
    lstm_onnx.export(module, path, example_inputs=x, dynamic_shapes=axes, target=target)
    assert operator in {node.op_type for node in onnx.load(path).graph.node}
    found = lstm_onnx.load(path, "cpu").run({"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_cell_of_float64_stays_a_scan_which_runs(tmp_path: Path) -> None:
    module, path = Rectified().eval(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    x = torch.randn(2, 6, FEATURES)
    lstm_onnx.export(module, path, example_inputs=x, dynamic_shapes=axes, precision="float64")
    found = lstm_onnx.load(path, "cpu").run({"x": x.double().numpy()})["output"]
    np.testing.assert_allclose(found, module.double()(x.double()).detach().numpy(), rtol=1e-12)
