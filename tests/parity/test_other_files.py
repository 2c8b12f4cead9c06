"""Files that other exporters made are verified, and made wrong, like our own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import lstm_onnx
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from lstm_onnx.parity.mutants.self_test import mutated

pytestmark = pytest.mark.sweep(12)

KERAS = Path(__file__).parents[1] / "conformance" / "keras"
STATES = {"h0": "hn", "c0": "cn"}


class Stateful(nn.Module):
    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm

    def forward(self, input: torch.Tensor, h0: torch.Tensor, c0: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, (hn, cn) = self.lstm(input, (h0, c0))
        return output, hn, cn


def _legacy(path: Path, **arguments: Any) -> nn.LSTM:
    """An LSTM as torch's own exporter without dynamo writes it."""
    torch.manual_seed(1)
    module = nn.LSTM(4, 3, **arguments)
    rows = module.num_layers * (1 + module.bidirectional)
    sequence = {0: "batch", 1: "time"} if module.batch_first else {0: "time", 1: "batch"}
    axes = {"input": sequence, "output": sequence, **{name: {1: "batch"} for name in ("h0", "c0", "hn", "cn")}}
    example = (torch.randn(2, 2, 4), torch.randn(rows, 2, 3), torch.randn(rows, 2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Stateful(module).eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input", "h0", "c0"],
            output_names=["output", "hn", "cn"],
            dynamic_axes=axes,
        )
    return module


@pytest.mark.parametrize(
    "arguments",
    [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"num_layers": 3, "bias": False}],
    ids=["plain", "two-way", "deep"],
)
def test_a_file_of_torchs_older_exporter_and_its_mutants(arguments: dict[str, Any], tmp_path: Path) -> None:
    module = _legacy(tmp_path / "m.onnx", **arguments)
    model = lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1, states=STATES)
    report = lstm_onnx.verify(module, model, mutants="all")
    assert report, str(report)
    assert len(report.mutants) > 12
    assert {mutant.outcome for mutant in report.mutants} == {"rejected"}


def test_a_wrong_one_is_told_where_and_why(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = _legacy(path, num_layers=2)
    graph = onnx.load(path)
    mutator = next(mutator for mutator in MUTATORS if mutator.name == "initial c ignored")
    outcome, wrong = mutated(graph, mutator, 1)
    assert outcome.applied
    onnx.save(wrong, path)
    report = lstm_onnx.verify(module, lstm_onnx.load(path, provider="cpu", threads=1, states=STATES))
    assert not report
    assert [cause.name for cause in report.causes] == ["states ignored of layer 1: c0"]
    assert report.location is not None
    assert report.location.layer == 1


@pytest.mark.parametrize("path", sorted(KERAS.glob("*.onnx")), ids=lambda path: path.stem)
def test_every_mistake_can_be_tried_in_files_of_tf2onnx(path: Path) -> None:
    graph = onnx.load(path)
    shapes = known_shapes(graph)
    sites = len(Edit(onnx.load(path)).layers)
    assert sites == {"masked": 0, "stacked": 2}.get(path.stem, 1)  # with a mask Keras loops by itself
    applied = 0
    for mutator in MUTATORS:
        for site in range(sites):
            outcome, wrong = mutated(graph, mutator, site, "", shapes)
            applied += outcome.applied
            if outcome.applied and not mutator.once:
                onnx.checker.check_model(wrong)
    assert applied >= 6 * sites


def test_a_file_without_a_recurrent_operator_is_noted(tmp_path: Path) -> None:
    """int8 is not in parity, so that here it takes a wide tolerance to get as far as the self-test."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from lstm_onnx.parity.lstm.verification import LSTMVerification
    from lstm_onnx.parity.verification import make_report

    torch.manual_seed(0)
    module = nn.LSTM(4, 16)
    lstm_onnx.export(module, tmp_path / "m.onnx")
    quantize_dynamic(
        tmp_path / "m.onnx", tmp_path / "q.onnx", op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8
    )
    done = LSTMVerification(lstm_onnx.load(tmp_path / "q.onnx", provider="cpu", threads=1), module)
    right = [case for case in done.cases if case.feeds["input"].shape[:2] == (1, 1)]
    done.cases = right
    results = list(done.results())
    passed = [result.__class__(result.label, tuple(_within(tensor) for tensor in result.tensors)) for result in results]
    report = make_report(done, passed)
    assert report.in_parity
    assert {result.name for result in report.mutants} > {"batch baked in", "output reversed in time"}
    assert any("no LSTM, GRU, RNN or Scan operator" in note for note in report.notes)


def _within(tensor: Any) -> Any:
    import dataclasses

    return dataclasses.replace(tensor, ratio=1.0, problem="")
