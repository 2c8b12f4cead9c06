"""Mutants that the usual cases do not reject meet further ones: louder inputs and weights, and float32 for half."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.metadata import Metadata
from lstm_onnx.parity.modules.harder import widened_graph, widened_inputs, widened_module
from lstm_onnx.parity.modules.verification import ModuleVerification
from lstm_onnx.parity.replay import replay
from lstm_onnx.parity.results import CaseResult

pytestmark = pytest.mark.sweep(6)


class Stack(nn.Module):
    """Three narrow projected layers, of which the first hardly shows; one that has no effect; a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.lstm = nn.LSTM(4, 5, 3, proj_size=1, batch_first=True)
        self.unread = nn.LSTM(1, 2, batch_first=True)
        self.head = nn.Linear(1, 3)
        with torch.no_grad():
            for parameter in self.lstm.parameters():
                parameter.mul_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        self.unread(y)
        return self.head(y[:, -1])


class HalfCell(nn.Module):
    """One step from zeros, in half precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.LSTMCell(7, 7)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0]).log_softmax(-1)


class Projected(nn.Module):
    """A projected LSTM, whose file has one bias for two."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, proj_size=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] * 2


def _exported(module: nn.Module, example: Tensor, axes: dict[int, str], folder: Path) -> Path:
    path = folder / "m.onnx"
    lstm_onnx.export(module.eval(), path, example_inputs=example, dynamic_shapes={"x": axes})
    return path


def _half_cell(folder: Path) -> tuple[nn.Module, Path]:
    module = HalfCell().eval().half()
    return module, _exported(module, torch.randn(2, 7).half(), {0: "batch"}, folder)


def test_a_layer_that_hardly_shows_is_proven_with_amplified_weights(tmp_path: Path) -> None:
    module = Stack().eval()
    path = _exported(module, torch.randn(2, 4, 4), {0: "batch", 1: "time"}, tmp_path)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="all")
    assert report, str(report)
    assert len({case.label for case in report.cases}) == len(report.cases)
    amplified = [case for case in report.cases if " weights amplified" in case.label]
    assert amplified
    assert any(mutant.case in {case.label for case in amplified} for mutant in report.mutants)


def test_without_further_cases_it_is_not_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lstm_onnx.parity.modules.verification import ModuleVerification

    module = Stack().eval()
    path = _exported(module, torch.randn(2, 4, 4), {0: "batch", 1: "time"}, tmp_path)
    monkeypatch.setattr(ModuleVerification, "harder", lambda _: iter(()))
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="quick")
    assert report.in_parity
    assert not report


def test_half_precision_is_proven_as_float32_is(tmp_path: Path) -> None:
    module, path = _half_cell(tmp_path)
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="all")
    assert report, str(report)
    assert {mutant.outcome for mutant in report.mutants} == {"rejected", "equivalent"}
    assert len({case.label for case in report.cases}) == len(report.cases)


def test_further_cases_that_the_file_fails_prove_nothing(tmp_path: Path) -> None:
    """Such as weights that were amplified in the module and are elsewhere in the file as well."""
    from lstm_onnx.parity.build import passed_targets
    from lstm_onnx.parity.modules.verification import ModuleVerification

    module, path = _half_cell(tmp_path)
    target, *_ = ModuleVerification(lstm_onnx.load(path, "cpu", threads=1), module).harder()
    added: list[CaseResult] = []
    assert list(passed_targets([target, replace(target, expected=())], added)) == [target]
    assert {result.label for result in added} == {case.label for case in target.expected}
    with torch.no_grad():
        module.head.weight.neg_()
    other, *_ = ModuleVerification(lstm_onnx.load(path, "cpu", threads=1), module).harder()
    added.clear()
    assert list(passed_targets([other], added)) == []
    assert added == []


def test_a_widened_file_is_the_module_in_float32(tmp_path: Path) -> None:
    module, path = _half_cell(tmp_path)
    before = path.read_bytes()
    graph = onnx.load(path)
    wide = widened_graph(graph, str(tmp_path))
    assert graph.SerializeToString() == onnx.load(path).SerializeToString()
    assert path.read_bytes() == before
    assert {tensor.data_type for tensor in wide.graph.initializer} & {TensorProto.FLOAT16} == set()
    metadata = Metadata.from_metadata({entry.key: entry.value for entry in wide.metadata_props})
    assert [spec.dtype for spec in metadata.inputs] == ["float32"]
    onnx.save(wide, tmp_path / "wide.onnx")
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    found = lstm_onnx.load(tmp_path / "wide.onnx", "cpu", threads=1).run({"x": x.numpy()})["output"]
    with torch.no_grad():
        np.testing.assert_allclose(found, widened_module(module)(x), atol=1e-5)
    assert next(module.parameters()).dtype == torch.float16


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_widened_scan_has_the_rounded_sum_of_the_biases(tmp_path: Path) -> None:
    """Otherwise the file fails its comparison in float32, and that proves nothing."""
    torch.manual_seed(0)
    module = Projected().eval().half()
    path = _exported(module, torch.randn(2, 4, 3).half(), {0: "batch", 1: "time"}, tmp_path)
    onnx.save(widened_graph(onnx.load(path), str(tmp_path)), tmp_path / "wide.onnx")
    x = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1))
    found = lstm_onnx.load(tmp_path / "wide.onnx", "cpu", threads=1).run({"x": x.numpy()})["output"]
    with torch.no_grad():
        wide, exact = widened_module(module)(x).numpy(), module.float()(x).numpy()
    assert np.abs(found - wide).max() < 1e-6
    assert np.abs(found - exact).max() > 1e-5


def test_inputs_are_widened_wherever_they_are() -> None:
    inputs = ({"a": torch.zeros(2).half()}, [torch.ones(1, dtype=torch.int64)], None, 3)
    wide = widened_inputs(inputs)
    assert wide[0]["a"].dtype == torch.float32
    assert wide[1][0].dtype == torch.int64
    assert wide[2:] == (None, 3)


class Small(nn.Module):
    """Outputs of about 1e-8, which are far below a rounding of 1."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.lstm = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0] * 1e-8


def test_small_outputs_are_compared_relative_to_themselves_where_the_file_passes_so(tmp_path: Path) -> None:
    path = _exported(Small(), torch.randn(2, 5, 2), {}, tmp_path)
    right, wrong = (ModuleVerification(lstm_onnx.load(path, "cpu", threads=1), Small(seed)) for seed in (0, 1))
    assert all(result.passed for result in right.results())
    assert not any(result.passed for result in wrong.results() if result.kind == "whole")
    target = next(right.harder())
    assert all(case.label.startswith("relative to small outputs, ") for case in target.expected)
    assert all(replay(target.model, case).passed for case in target.expected)
    scales = target.expected[0].scales
    assert not any(replay(right.model, replace(case, scales=scales)).passed for case in wrong.expected)
    labels = [case.label for case in next(wrong.harder()).expected]
    assert labels
    assert not any("relative to small outputs" in label for label in labels)
