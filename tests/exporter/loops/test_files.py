"""Modules with Python loops over time as files: right at lengths that were not traced, or refused with the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import lstm_onnx
from lstm_onnx import ExportError, InputError
from lstm_onnx.onnxgraph import nodes_of

from .zoo import ZOO, Entry, signal

pytestmark = pytest.mark.sweep(27)

LENGTHS = (1, 2, 3, 7, 30, 200)
ORDINARY = ("LSTMInOneMatrix", "TutorialSeq2Seq", "FirstStepApart", "CopiedToBeViewed")
RECURRENT = {"LSTM", "GRU", "RNN"}


def made(entry: Entry) -> nn.Module:
    torch.manual_seed(0)
    return entry.kind().eval()


def exported(name: str, path: Path) -> nn.Module:
    module = made(ZOO[name])
    lstm_onnx.export(module, path, example_inputs=ZOO[name].inputs(2, 5), dynamic_shapes=tuple(ZOO[name].axes))
    return module


def require_right(module: nn.Module, path: Path, entry: Entry, lengths: tuple[int, ...]) -> None:
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    compared = 0
    for batch in (1, 4):
        for length in lengths:
            inputs = entry.inputs(batch, length)
            try:
                with torch.no_grad():
                    expected = pytree.tree_leaves(module(*inputs))
                found = model.run({name: x.numpy() for name, x in zip(model.inputs, inputs, strict=True)})
            except (RuntimeError, IndexError, InputError):
                assert length == 1  # of which the module, or the file by its limits, makes nothing
                continue
            for actual, wanted in zip(found.values(), expected, strict=True):
                np.testing.assert_allclose(actual, wanted.numpy(), rtol=1e-4, atol=2e-6)
                compared += 1
    assert compared


@pytest.mark.parametrize("name", ORDINARY)
def test_the_file_is_right_at_every_length(name: str, tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    module = exported(name, path)
    require_right(module, path, ZOO[name], (1, 2, 30))
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert ("Scan" in operators) == (ZOO[name].becomes == "scan")
    assert len(list(nodes_of(onnx.load(path).graph.node))) <= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_module_becomes_a_right_file_or_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    if ZOO[name].becomes == "refused":
        with pytest.raises(ExportError, match=r"forms\.py:\d+: "):
            exported(name, path)
        assert not path.exists()
        return
    module = exported(name, path)
    require_right(module, path, ZOO[name], LENGTHS)
    assert len(list(nodes_of(onnx.load(path).graph.node))) <= 60


class WholeLSTM(nn.Module):
    def __init__(self, loop: Any) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)
        self.cell.load_state_dict({f"{name}_l0": value for name, value in loop.cell.state_dict().items()})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output, (_, c) = self.cell(x)
        return output, c.squeeze(0)


def test_a_loop_over_a_cell_is_the_file_of_the_whole_lstm(tmp_path: Path) -> None:
    loop = exported("OverLSTMCell", tmp_path / "loop.onnx")
    axes = tuple(ZOO["OverLSTMCell"].axes)
    whole = WholeLSTM(loop).eval()
    axes = tuple(ZOO["OverLSTMCell"].axes)
    whole = WholeLSTM(loop).eval()
    lstm_onnx.export(whole, tmp_path / "whole.onnx", example_inputs=signal(2, 5), dynamic_shapes=axes)
    files = [onnx.load(tmp_path / f"{name}.onnx").graph for name in ("loop", "whole")]
    of_loop, of_whole = ([(node.op_type, len(node.input)) for node in graph.node] for graph in files)
    assert [op for op, _ in of_loop if op in RECURRENT] == ["LSTM"]
    assert [op for op, _ in of_loop] == [op for op, _ in of_whole]
    weights = [{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer} for graph in files]
    for name in ("cell/l0/W", "cell/l0/R", "cell/l0/B"):
        np.testing.assert_array_equal(weights[0][name], weights[1][name])


REFUSED = {
    "DecaysByStep": r"forms\.py:\d+: h = h \+ .*: a Python loop .*: a number is [\d.]+ in one step or at one length"
    r".* and take decay\[t\]",
    "LooksAtAllBefore": r"forms\.py:\d+: steps\.append.*: the size of a tensor grows from step to step",
    "StopsByValue": r"forms\.py:\d+: if h\.abs\(\)\.max\(\) > 0\.99: the code depends on the numbers in a tensor",
    "TruncatesTheSequence": r"so it was not kept; at forms\.py:\d+: if t >= self\.most: the module's code depends on",
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_refusal_has_the_line_and_the_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=REFUSED[name]):
        exported(name, tmp_path / "loop.onnx")
    assert not list(tmp_path.iterdir())


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        exported("MinimalGRU", tmp_path / f"{name}.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_the_module_is_not_changed(tmp_path: Path) -> None:
    module = made(ZOO["OverRNNCell"])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lstm_onnx.export(
        module, tmp_path / "a.onnx", example_inputs=signal(2, 5), dynamic_shapes=({0: "batch", 1: "time"},)
    )
    assert type(module.cell) is nn.RNNCell
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_axes_are_found_where_nobody_names_them(tmp_path: Path) -> None:
    module = made(ZOO["OverLSTMCell"])
    lstm_onnx.export(module, tmp_path / "a.onnx", example_inputs=signal(2, 5))
    require_right(module, tmp_path / "a.onnx", ZOO["OverLSTMCell"], (1, 2, 12))
