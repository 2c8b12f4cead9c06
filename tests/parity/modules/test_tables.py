"""Rows of tables that a computed index may reach, but does not reach in any case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.modules.tables import TABLES

_ROWS = 60


class Hashed(nn.Module):
    """Embeds the quotient and the remainder of its integers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other = nn.Embedding(_ROWS, 3), nn.Embedding(7, 3)
        self.rnn = nn.GRU(3, 4, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.rnn(self.one(ids // 7) + self.other(ids % 7))[0]
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A module and its file; in the example, the quotient is at most 5."""
    path = tmp_path_factory.mktemp("tables") / "m.onnx"
    module = Hashed().eval()
    lstm_onnx.export(module, path, example_inputs=torch.randint(0, 42, (2, 5)), check=False)
    return module, path


def _table(model: onnx.ModelProto) -> onnx.TensorProto:
    found: onnx.TensorProto = next(one for one in model.graph.initializer if list(one.dims) == [_ROWS, 3])
    return found


def test_a_wrong_row_that_no_case_looks_up(made: tuple[nn.Module, Path], tmp_path: Path) -> None:
    module, path = made
    model = onnx.load(path)
    table = numpy_helper.to_array(_table(model)).copy()
    table[41] += 1
    _table(model).CopyFrom(numpy_helper.from_array(table, _table(model).name))
    onnx.save(model, tmp_path / "wrong.onnx")
    report = lstm_onnx.verify(module, tmp_path / "wrong.onnx", mutants="none")
    assert [case.label for case in report.cases if not case.passed] == [TABLES]
    assert f"wrong: {TABLES}: 1 of {_ROWS} rows of one.weight differ from the module's, such as 41" in str(report)


def test_a_table_in_another_form(made: tuple[nn.Module, Path], tmp_path: Path) -> None:
    """Its rows are twice as large, and halved after the look-up."""
    module, path = made
    model = onnx.load(path)
    table = _table(model)
    table.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(table), table.name))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    at, gather = next((at, node) for at, node in enumerate(model.graph.node) if table.name in node.input)
    (output,) = gather.output
    gather.output[0] = "doubled"
    model.graph.node.insert(at + 1, helper.make_node("Mul", ["doubled", "half"], [output]))
    onnx.save(model, tmp_path / "right.onnx")
    assert lstm_onnx.verify(module, tmp_path / "right.onnx", mutants="none")
