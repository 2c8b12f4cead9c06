"""A NaN that reaches an ``if`` through a recurrent module: the file takes PyTorch's branch."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.onnxgraph import nodes_of

pytestmark = pytest.mark.sweep(9)


class Louder(nn.Module):
    """Rows are made smaller where the whole batch is loud; with a NaN in any row it is not."""

    def __init__(self, kind: type[nn.RNNBase], **arguments: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(3, 4, batch_first=True, **arguments)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        y, states = self.rnn(x)
        if y.abs().max() > 0.01:
            y = y / 2
        return y, states


class Lengths(Louder):
    """Of sequences with lengths: a NaN in the padding is none."""

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
        packed, states = self.rnn(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        if y.abs().max() > 0.01:
            y = y / 2
        return y, states


class Cells(nn.Module):
    """A loop, each of whose steps asks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.LSTMCell(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 4)
        found = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            if h.abs().max() > 0.1:
                h = h / 2
            found.append(h)
        return torch.stack(found, 1)


class AfterCells(Cells):
    """A condition after the loop."""

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 4)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        if h.abs().max() > 0.1:
            x = x / 2
        return torch.cat([x.sum(1), h], 1)


MODULES = [
    Louder(nn.LSTM),
    Louder(nn.LSTM, num_layers=2, bidirectional=True),
    Louder(nn.LSTM, proj_size=2),
    Louder(nn.GRU, bidirectional=True),
    Louder(nn.RNN, num_layers=2),
    Lengths(nn.LSTM, bidirectional=True),
    Cells(),
    AfterCells(),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(getattr(module, "rnn", type(module).__name__)))
@pytest.mark.parametrize("step", [0, 3])
def test_the_branch_is_pytorchs(module: nn.Module, step: int, tmp_path: Path) -> None:
    module.eval()
    axes = {0: "batch", 1: "time"}
    lengths = isinstance(module, Lengths)
    x, more = torch.randn(3, 5, 3), (torch.tensor([5, 2, 4]),) * lengths
    shapes = {"x": axes, "lengths": {0: "batch"}} if lengths else {"x": axes}
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=(x, *more), dynamic_shapes=shapes)
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    for row in (0, 1):
        x = torch.randn(3, 5, 3)
        x[row, step, 1] = torch.nan
        with torch.no_grad():
            wanted = torch.utils._pytree.tree_leaves(module(x, *more))
        arrays = dict(
            zip((item.name for item in session.get_inputs()), (x.numpy(), *map(np.asarray, more)), strict=True)
        )
        for actual, expected in zip(session.run(None, arrays), wanted, strict=True):
            np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-6)


class Elementwise(Louder):
    """Each number is chosen by itself."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        return torch.where(y > 0, y, -y)


def test_other_files_are_as_plain_as_before(tmp_path: Path) -> None:
    lstm_onnx.export(Elementwise(nn.LSTM).eval(), tmp_path / "m.onnx", example_inputs=(torch.randn(2, 5, 3),))
    assert "IsNaN" not in {node.op_type for node in nodes_of(onnx.load(tmp_path / "m.onnx").graph.node)}


class Context(Louder):
    """A condition on the end of one sequence, and another one that streams."""

    def __init__(self) -> None:
        super().__init__(nn.LSTM)
        self.context = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, around: Tensor) -> Tensor:
        _, h = self.context(around)
        y, _ = self.rnn(x)
        if h.mean() > 0:
            y = y / 2
        return y


def test_only_what_the_condition_follows_from_keeps_a_nan(tmp_path: Path) -> None:
    example = torch.randn(2, 5, 3), torch.randn(2, 4, 3)
    shapes = {"x": {0: "batch", 1: "time"}, "around": {0: "batch"}}
    lstm_onnx.export(Context().eval(), tmp_path / "m.onnx", example_inputs=example, dynamic_shapes=shapes)
    nodes = onnx.load(tmp_path / "m.onnx").graph.node
    marked = {node.name.partition("/")[0] for node in nodes if node.op_type == "IsNaN"}
    assert marked == {"context"}
