"""What steps read, write and compute with their own number: right at all lengths, also of one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError, RunError
from lstm_onnx.onnxgraph import nodes_of

from .step_modules import (
    FEATURES,
    HIDDEN,
    AddsTheStateBefore,
    AfterTheFirstTwo,
    BothWaysJoined,
    ClampsItsWeights,
    Clockwork,
    CountsFromTheEnd,
    FeedsItselfAndFills,
    FilledWithTheNumber,
    FillsBeforeItUpdates,
    FillsWithTheFirst,
    JoinedInEachWay,
    JoinedInTurns,
    Pointer,
    PowersAndBounds,
    PowersOfTheNumber,
    ScaledByDoubles,
    SeesItsLastWeights,
    SplitAsNumpyDoes,
    StartsFromTheFirst,
    Step,
    SubtractsTheOutputBefore,
    TimeLast,
    TwoTensorsFilled,
    Window,
)

pytestmark = pytest.mark.sweep(27)

AXES = ({0: "batch", 1: "time"},)


KINDS = {
    Clockwork: ["Scan", "Scan"],
    PowersAndBounds: ["Scan"],
    PowersOfTheNumber: ["Scan", "Scan"],
    FilledWithTheNumber: ["Scan"],
    Window: ["GRU", "Scan"],
    StartsFromTheFirst: ["Scan"],
    TwoTensorsFilled: ["GRU"],
    FillsBeforeItUpdates: ["Scan"],
    AfterTheFirstTwo: ["Scan"],
    JoinedInEachWay: ["GRU"],
    BothWaysJoined: ["GRU", "GRU"],
    FeedsItselfAndFills: ["GRU", "Scan"],
    Pointer: ["GRU", "Scan"],
    SeesItsLastWeights: ["GRU", "Scan"],
    CountsFromTheEnd: ["Scan", "Scan"],
    SplitAsNumpyDoes: ["GRU"],
    ClampsItsWeights: ["Scan"],
    FillsWithTheFirst: ["GRU", "Scan"],
    ScaledByDoubles: ["Scan"],
    JoinedInTurns: ["GRU"],
    TimeLast: ["GRU"],
    AddsTheStateBefore: ["GRU", "Scan"],
    SubtractsTheOutputBefore: ["GRU", "Scan"],
}


def outputs_of(module: nn.Module, x: Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        found = module(x)
    return [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_file_is_right_at_all_lengths_with_each_step_once(kind: type[Step], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    path = tmp_path / "loop.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=AXES)
    graph = onnx.load(path).graph
    nodes = list(nodes_of(graph.node))
    assert sorted(node.op_type for node in nodes if node.op_type in ("GRU", "Scan")) == KINDS[kind]
    assert {tensor.name for tensor in graph.initializer} <= {name for node in nodes for name in node.input}
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    for batch, length in ((1, 1), (3, 2), (2, 3), (2, 5), (1, 30)):
        x = torch.randn(batch, length, FEATURES)
        for found, wanted in zip(model.run({"x": x.numpy()}).values(), outputs_of(module, x), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Clockwork, Window, TwoTensorsFilled, FillsBeforeItUpdates])
def test_the_file_streams(kind: type[Step], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    path = tmp_path / "loop.onnx"
    example = torch.randn(2, 6, FEATURES)
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=AXES, states="explicit")
    stream = lstm_onnx.load(path, provider="cpu", threads=1).stream(batch=2)
    x = torch.randn(2, 14, FEATURES)
    chunks = [stream.run({"x": x[:, start:end].numpy()}) for start, end in ((0, 1), (1, 2), (2, 9), (9, 14))]
    for name, wanted in zip(chunks[0], outputs_of(module, x), strict=True):
        joined = np.concatenate([chunk[name] for chunk in chunks], 1)
        np.testing.assert_allclose(joined, wanted, rtol=1e-4, atol=1e-5)


class ReadsItsTable(Step):
    """A table of 12 rows, of which each step reads all and fills one."""

    def forward(self, x: Tensor) -> Tensor:
        table = x.new_zeros(x.shape[0], 12, HIDDEN)
        for t in range(x.shape[1]):
            table[:, t] = torch.tanh(self.x(x[:, t]) + table.mean(1))
        return table.mean(1)


def test_a_row_that_a_tensor_does_not_have_is_an_error_of_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = ReadsItsTable().eval(), tmp_path / "loop.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=AXES)
    model, x = lstm_onnx.load(path, provider="cpu", threads=1), torch.randn(2, 13, FEATURES)
    whole = x[:, :12]
    np.testing.assert_allclose(model.run({"x": whole.numpy()})["output"], outputs_of(module, whole)[0], rtol=1e-4)
    with pytest.raises(RunError):
        model.run({"x": x.numpy()})


class StartsAtTheFourth(Step):
    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for t in range(3, x.shape[1]):
            h = torch.tanh(self.x(x[:, t]) + self.h(h)).clamp(max=0.9)
        return h


def test_a_loop_that_has_no_step_at_small_sizes_is_proven_at_larger_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = StartsAtTheFourth().eval(), tmp_path / "loop.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=AXES)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    for length in (3, 4, 30):
        x = torch.randn(2, length, FEATURES)
        found, (wanted,) = model.run({"x": x.numpy()})["output"], outputs_of(module, x)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


class Rolled(Step):
    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        return (h + before).roll(t, 1)


def test_what_cannot_take_the_number_of_the_step_is_refused_with_its_line(tmp_path: Path) -> None:
    message = r"step_modules\.py:\d+: h = .*: a Python loop .*: roll takes the number of the step"
    with pytest.raises(ExportError, match=message):
        lstm_onnx.export(Rolled(), tmp_path / "a.onnx", example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=AXES)


class ResetsEveryFourth(Step):
    def after(self, h: Tensor, before: Tensor, t: int) -> Tensor:
        return h * float(t % 4 != 0) + 0.1 * before


def test_of_steps_that_differ_the_reason_is_the_step_and_not_the_list_of_all(tmp_path: Path) -> None:
    message = r"step_modules\.py:\d+: h = .*: a Python loop .*: a number is [01] in one step"
    with pytest.raises(ExportError, match=message):
        lstm_onnx.export(
            ResetsEveryFourth(), tmp_path / "a.onnx", example_inputs=torch.randn(2, 6, FEATURES), dynamic_shapes=AXES
        )
