"""Every way in which a module may hold and call its recurrent parts."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence

import lstm_onnx
from lstm_onnx import ExportError
from lstm_onnx.exporter.opaque.operators import replace_recurrent_modules
from tests.exporter.helpers import BATCH_TIME, Made, X, agree, eager, made, right, signal

pytestmark = pytest.mark.sweep(36)


def seeded(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return module


def weights(result: Made) -> list[str]:
    """The initializers of more than 64 bytes."""
    tensors = result.proto.graph.initializer
    return sorted(tensor.name for tensor in tensors if len(tensor.raw_data) > 64)


class Louder(nn.LSTM):
    """A subclass that does more."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:  # type: ignore[override]
        out, states = super().forward(2 * input, hx)
        return out + 1, states


class Holder(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Any:
        return self.part(x)


PARTS = {
    "subclass": (lambda: Louder(3, 4, batch_first=True), ["LSTM"]),
    "three layers, both directions": (lambda: nn.LSTM(3, 4, 3, batch_first=True, bidirectional=True), ["LSTM"] * 3),
    "no bias, dropout": (lambda: nn.LSTM(3, 4, 2, bias=False, dropout=0.5, batch_first=True), ["LSTM"] * 2),
    "gru": (lambda: nn.GRU(3, 4, 2, batch_first=True, bidirectional=True), ["GRU"] * 2),
    "rnn": (lambda: nn.RNN(3, 4, nonlinearity="relu", batch_first=True), ["RNN"]),
    "projected": (lambda: nn.LSTM(3, 4, 2, proj_size=2, batch_first=True), ["Scan"] * 2),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("part", PARTS)
def test_each_layer_is_one_operator(part: str, tmp_path: Path) -> None:
    make, operators = PARTS[part]
    result = right(seeded(Holder(make())), signal, X, tmp_path)
    assert [name for name in result.operators if name in ("LSTM", "GRU", "RNN", "Scan")] == operators


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projection_that_is_folded(tmp_path: Path) -> None:
    part = nn.LSTM(3, 6, 2, proj_size=2, batch_first=True, bidirectional=True)
    result = right(seeded(Holder(part)), signal, X, tmp_path, projection="fold")
    assert Counter(result.operators)["LSTM"] == 2
    assert "Scan" not in result.operators


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("kind", ["parametrized", "hook"])
def test_weight_norm_before_any_forward(kind: str, tmp_path: Path) -> None:
    norm = parametrizations.weight_norm if kind == "parametrized" else nn.utils.weight_norm
    lstm = nn.LSTM(3, 4, batch_first=True)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        norm(lstm, name)  # type: ignore[operator]
    module = seeded(Holder(lstm))  # the norms are other ones than when it was made
    result = made(module, signal(2, 4), X, tmp_path)
    agree(result.run(signal(3, 5)), eager(module, signal(3, 5)))


class Twice(nn.Module):
    """One LSTM on two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.lstm(x)[0], self.lstm(x.flip(1) * 2)[1][0]


def test_two_calls_share_their_weights(tmp_path: Path) -> None:
    result = right(seeded(Twice()), signal, X, tmp_path)
    assert Counter(result.operators)["LSTM"] == 2
    assert weights(result) == ["lstm/l0/B", "lstm/l0/R", "lstm/l0/W"]
    names = [node.name for node in result.proto.graph.node if node.op_type == "LSTM"]
    assert names == ["lstm/l0/LSTM", "lstm/call2/l0/LSTM"]


class Shared(nn.Module):
    """One LSTM under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.LSTM(3, 5, batch_first=True)
        self.two = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x)[0] + self.two(-x)[0]


def test_one_module_under_two_names(tmp_path: Path) -> None:
    assert weights(right(seeded(Shared()), signal, X, tmp_path)) == ["one/l0/B", "one/l0/R", "one/l0/W"]


class Started(nn.Module):
    """States that the user's code makes, that are learned, and that are arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, 2, batch_first=True)
        self.start = nn.Parameter(torch.zeros(2, 1, 5))
        self.from_mean = nn.Linear(3, 5)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        learned = self.start.expand(-1, x.size(0), -1).contiguous()
        made_here = self.from_mean(x.mean(1)).unsqueeze(0).repeat(2, 1, 1)
        zeros = torch.zeros(2, x.size(0), 5)
        given, after = self.lstm(x, (h, c))
        return self.lstm(x, (learned, made_here))[0], self.lstm(x, (zeros, zeros))[0], given, *after


def test_states_from_the_forward_and_from_outside(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(batch)
        return (*signal(batch, time), *(torch.randn((2, batch, 5), generator=generator) for _ in "hc"))

    shapes = {**X, "h": {1: "batch"}, "c": {1: "batch"}}
    result = right(seeded(Started()), inputs, shapes, tmp_path)
    assert result.model.states == {"h": "output.3", "c": "output.4"}


class Unbatched(nn.Module):
    """One sequence at a time, for a sequence and for a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, bidirectional=True)
        self.gru = nn.GRU(8, 4, batch_first=True)
        self.cell = nn.LSTMCell(4, 4)
        self.rnn_cell = nn.RNNCell(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        out, (h, _) = self.lstm(x)
        last, _ = self.gru(out)
        state, cell = self.cell(last[-1], (h[0], h[1]))
        return out, h, last, state, cell, self.rnn_cell(state)


def test_without_a_batch(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor]:
        return (signal(batch, time)[0][0],)

    right(seeded(Unbatched()), inputs, {"x": {0: "time"}}, tmp_path)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(3, 4)
        self.gru = nn.GRUCell(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, c = self.lstm(x)
        return self.gru(h, c), c


def test_cells_with_a_batch_are_one_step(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor]:
        return (signal(batch, time)[0][:, 0],)

    operators = right(seeded(Cells()), inputs, {"x": {0: "batch"}}, tmp_path).operators
    assert (operators.count("LSTM"), operators.count("GRU")) == (1, 1)


class Alien(nn.Module):
    """Packs by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        packed = PackedSequence(x[0], torch.ones(4, dtype=torch.int64))
        return self.lstm(packed)[1][0]


def test_a_packed_sequence_made_by_hand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"lstm gets a PackedSequence that pack_padded_sequence did not make"):
        made(Alien(), signal(2, 4), {"x": {0: "batch"}}, tmp_path)


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (nn.LSTM(3, 4, dtype=torch.bfloat16), r"part has dtype bfloat16, .* export module.float\(\) instead"),
        (nn.LSTMCell(3, 4, dtype=torch.complex64), "part has dtype complex64"),
        (nn.GRU(3, 4, device="meta"), "part.weight_ih_l0 is on the meta device, where weights have no values; load"),
    ],
)
def test_parts_that_nothing_runs_are_refused(part: nn.Module, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=problem):
        made(Holder(part), signal(2, 4), X, tmp_path)


class BoundedCell(nn.GRUCell):
    """A GRU whose state stays within bounds, written out; the reset gate acts before the matrix."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        z, r, n = (x @ self.weight_ih.T + self.bias_ih).chunk(3, dim=1)
        update, rest = self.weight_hh.split([12, 6])
        u, v = (h @ update.T).chunk(2, dim=1)
        z, r = torch.sigmoid(z + u), torch.sigmoid(r + v)
        n = torch.tanh(n + (r * h) @ rest.T)
        return (z * h + (1 - z) * n).clamp(-0.4, 0.4)


class FiveSteps(nn.Module):
    """Takes sequences of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = BoundedCell(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == 5
        h = x.new_zeros(x.shape[0], 6)
        for step in x.unbind(1):
            h = self.cell(step, h)
        return h


def test_a_subclass_may_be_written_out_for_a_fixed_number_of_steps(tmp_path: Path) -> None:
    module = seeded(FiveSteps()).eval()
    path = tmp_path / "m.onnx"
    result = lstm_onnx.export(module, path, example_inputs=torch.randn(2, 5, 4))
    assert "{'x': {0: 'batch'}}" in result.notes[0]
    x = torch.randn(3, 5, 4)
    with torch.no_grad():
        actual = lstm_onnx.load(path, provider="cpu").run({"x": x.numpy()})["output"]
        np.testing.assert_allclose(actual, module(x), atol=1e-6)


def test_sites_know_their_module() -> None:
    module = nn.ModuleDict({"a": nn.Sequential(nn.LSTM(3, 4), nn.Tanh()), "b": Louder(3, 4), "c": nn.GRUCell(3, 4)})
    recurrent_modules = replace_recurrent_modules(module)
    assert {path: (recurrent.spec.op_type, recurrent.cell) for path, recurrent in recurrent_modules.items()} == {
        "a.0": ("LSTM", False),
        "b": ("LSTM", False),
        "c": ("GRU", True),
    }
    assert isinstance(module["b"], Louder)
    assert type(module["b"]).__name__ == "Louder"


def test_eager_runs_record_each_call_and_take_other_states() -> None:
    module = seeded(Twice())
    recurrent_modules = replace_recurrent_modules(module)
    (x,) = signal(2, 4)
    first = eager(module, (x,))
    recurrent = recurrent_modules["lstm"]
    assert [call.initial for call in recurrent.calls] == [None, None]
    assert recurrent.calls[1].line.startswith("test_operators.py:")
    np.testing.assert_array_equal(recurrent.calls[1].final[0], first[1])
    recurrent.reset_calls()
    states = torch.ones(1, 2, 5), torch.ones(1, 2, 5)
    recurrent.override[0] = states
    other = eager(module, (x,))
    assert recurrent.calls[0].initial is not None
    assert not np.allclose(other[0], first[0])
    np.testing.assert_array_equal(other[1], first[1])


def test_code_may_ask_for_the_class_of_its_lstm(tmp_path: Path) -> None:
    class Module(Holder):
        def forward(self, x: Tensor) -> Any:
            out, _ = self.part(x)
            return out * (2 if type(self.part) is nn.LSTM else 3) + len(type(self.part).__name__)

    right(Module(nn.LSTM(3, 4, batch_first=True)), signal, X, tmp_path)


def test_a_hook_on_the_lstm_is_kept(tmp_path: Path) -> None:
    module = seeded(Holder(nn.LSTM(3, 4, batch_first=True)))
    module.get_submodule("part").register_forward_hook(lambda _, __, result: (result[0] * 3, result[1]))
    module.get_submodule("part").register_forward_pre_hook(lambda _, args: (args[0] + 1,))
    right(module, signal, {"x": BATCH_TIME}, tmp_path)
