"""Modules that run at few of the sizes that their file's axes leave open."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import lstm_onnx

pytestmark = pytest.mark.sweep(6)

WIDTH = 16


class Narrow(nn.Module):
    """Takes a part of a picture; `accepted` has the sizes of the axes that it is fussy about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.accepted: dict[int, int] = {}

    def forward(self, x: Tensor) -> Tensor:
        for axis, size in self.accepted.items():
            if x.size(axis) != size:
                raise ValueError("wrong size")
        return self.lstm(x[..., :3])[0]  # type: ignore[no-any-return]


class BlockGains(nn.Module):
    """A gain for each block of samples, by the loudest of each block so far."""

    def __init__(self, block: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = block
        self.lstm = nn.LSTM(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        loudest = nn.functional.max_pool1d(x, self.block).permute(2, 0, 1)
        gain = self.lstm(loudest)[0].permute(1, 2, 0)
        blocks = x.reshape(-1, 3, x.shape[-1] // self.block, self.block)
        return (blocks * gain.unsqueeze(-1)).reshape(x.shape)


class LastStep(nn.Module):
    """The output at the last valid step, which the example's lengths do not have at fewer steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.lstm(x)[0][torch.arange(x.shape[0]), lengths - 1]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("few") / "m.onnx"
    shapes = {"x": {0: "batch", 1: "time", 2: torch.export.Dim("width", min=WIDTH)}}
    lstm_onnx.export(Narrow(), path, example_inputs=torch.randn(2, 5, WIDTH), dynamic_shapes=shapes)
    return path


@pytest.mark.parametrize(
    ("accepted", "judged"), [({2: WIDTH}, ["batch", "width"]), ({0: 3, 1: 7, 2: WIDTH}, ["inputs"])]
)
def test_it_is_judged_where_the_module_runs(accepted: dict[int, int], judged: list[str], file: Path) -> None:
    module = Narrow()
    module.accepted = accepted
    right = lstm_onnx.verify(module, file, provider="cpu", threads=1, mutants="none")
    assert right
    labels = [case.label for case in right.judged if case.kind == "whole"]
    assert all(any(word in label for label in labels) for word in judged)
    with torch.no_grad():
        module.lstm.get_parameter("bias_ih_l0").add_(0.1)
    assert not lstm_onnx.verify(module, file, provider="cpu", threads=1, mutants="none").in_parity


@pytest.mark.parametrize("given", [False, True], ids=["drawn", "example"])
def test_sizes_are_drawn_in_the_multiples_that_a_module_takes(given: bool, tmp_path: Path) -> None:
    """None of 7, 40 and 160 samples is a number of whole blocks; nearly all cases would be left out."""
    module, path, example = BlockGains(6).eval(), tmp_path / "m.onnx", torch.randn(2, 3, 12)
    shapes = {"x": {0: "batch", 2: "time"}}
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes)
    options = {"example_inputs": example} if given else {}
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none", **options)
    assert report
    assert report.notes == ("the module takes time only in multiples of 6",)
    assert {"whole", "sweep"} <= {case.kind for case in report.judged}


def test_steps_are_drawn_to_the_end_of_a_sequence(tmp_path: Path) -> None:
    """The example's lengths are from 3 to 6: fewer steps do not run, and no step after the sixth would be read."""
    module, path = LastStep().eval(), tmp_path / "m.onnx"
    example = (torch.randn(2, 6, 3), torch.tensor([6, 3]))
    shapes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    lstm_onnx.export(module, path, example_inputs=example, dynamic_shapes=shapes)
    right = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
    assert right
    assert not right.notes
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["of_few_bits" if name == "lengths" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", ["cast"], ["of_few_bits"], to=onnx.TensorProto.INT64))
    model.graph.node.insert(0, helper.make_node("Cast", ["lengths"], ["cast"], to=onnx.TensorProto.INT8))
    onnx.save(model, path)
    assert not lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
