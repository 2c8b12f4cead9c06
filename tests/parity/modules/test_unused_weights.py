"""Weights that no case uses: those of an expert that no step is routed to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.modules.unused_weights import WEIGHTS


class Experts(nn.Module):
    """Adds what the expert of each step gives; no step has the last one.  `unused` is in no result."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.router, self.unused = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 3), nn.Linear(4, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        with torch.no_grad():
            self.router.bias[2] = -50

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.rnn(x)[0]
        chosen = self.router(h).argmax(-1, keepdim=True)
        found: Tensor = h + sum(expert(h) * (chosen == index) for index, expert in enumerate(self.experts))
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experts, onnx.ModelProto]:
    path = tmp_path_factory.mktemp("experts") / "m.onnx"
    module = Experts().eval()
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 5, 3), check=False)
    return module, onnx.load(path)


def _stored(model: onnx.ModelProto, weight: Any) -> onnx.TensorProto:
    """The initializer of a Linear's weight."""
    own = weight.detach().numpy()
    arrays = ((tensor, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    found: onnx.TensorProto = next(
        tensor for tensor, array in arrays if np.array_equal(array, own) or np.array_equal(array, own.T)
    )
    return found


def _failures(module: nn.Module, model: onnx.ModelProto, path: Path) -> list[str]:
    onnx.save(model, path)
    report = lstm_onnx.verify(module, path, mutants="none")
    return [f"{case.label}: {case.error}" for case in report.cases if not case.passed]


def test_a_wrong_weight_that_no_case_uses(made: tuple[Experts, onnx.ModelProto], tmp_path: Path) -> None:
    module, model = made[0], onnx.ModelProto.FromString(made[1].SerializeToString())
    tensor = _stored(model, module.experts[2].weight)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
    (failure,) = _failures(module, model, tmp_path / "wrong.onnx")
    missing = "unused.weight or experts.2.weight"
    numbers = f"the numbers of {tensor.name} are no parameter's"
    assert failure == f"{WEIGHTS}: {numbers}, and the file has no {missing}; no case uses them"


def test_a_weight_in_another_form(made: tuple[Experts, onnx.ModelProto], tmp_path: Path) -> None:
    """One that cases use is twice as large, and its input half as large."""
    module, model = made[0], onnx.ModelProto.FromString(made[1].SerializeToString())
    tensor = _stored(model, module.experts[1].weight)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    at, node = next((at, node) for at, node in enumerate(model.graph.node) if tensor.name in node.input)
    model.graph.node.insert(at, helper.make_node("Mul", [node.input[0], "half"], ["halved"]))
    node.input[0] = "halved"
    assert _failures(module, model, tmp_path / "right.onnx") == []


def test_a_wrong_weight_equal_to_others(tmp_path: Path) -> None:
    """A file may store equal weights once; then the place of one may have wrong numbers, and the others' the right."""
    module = Experts().eval()
    for expert in module.experts:
        assert isinstance(expert, nn.Linear)
        nn.init.zeros_(expert.bias)
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=torch.randn(2, 5, 3), check=False)
    model = onnx.load(tmp_path / "m.onnx")
    shared = _stored(model, module.experts[2].bias).name
    model.graph.initializer.append(numpy_helper.from_array(np.arange(4, dtype=np.float32), "wrong"))
    node = [node for node in model.graph.node if shared in node.input][-1]
    node.input[list(node.input).index(shared)] = "wrong"
    (failure,) = _failures(module, model, tmp_path / "wrong.onnx")
    assert failure.startswith(f"{WEIGHTS}: the numbers of wrong are no parameter's, and the file has no ")
    assert "experts.2.bias" in failure


class Normalized(nn.Module):
    """A convolution with a BatchNorm, which a file stores as one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4)
        nn.init.normal_(self.norm.bias)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.norm(self.conv(h.transpose(1, 2))).transpose(1, 2)
        return found


def test_a_merged_norm_that_no_case_uses(tmp_path: Path) -> None:
    module = Experts()
    module.experts[2] = Normalized()
    module.experts.extend(nn.Linear(4, 4) for _ in range(4))  # most biases are stored as they are
    lstm_onnx.export(module.eval(), tmp_path / "m.onnx", example_inputs=torch.randn(2, 5, 3), check=False)
    assert _failures(module, onnx.load(tmp_path / "m.onnx"), tmp_path / "right.onnx") == []
