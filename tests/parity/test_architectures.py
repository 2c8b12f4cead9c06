"""Whole modules: every architecture is in parity, and none of its mutants is."""

from __future__ import annotations

from pathlib import Path

import pytest

import lstm_onnx
from lstm_onnx import ParityReport
from tests.architectures import ALL, Architecture

_FEW = (
    "packed_sorted",
    "packed_marked_padding",
    "cell_after_lstm",
    "first_cell_step",
    "siamese",
    "policy",
    "kept_state",
)
pytestmark = [
    pytest.mark.sweep(18),
    pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:`torch.nn.utils.weight_norm`"),
]


def _verified(architecture: Architecture, folder: Path) -> ParityReport:
    module, inputs = architecture.example()
    path = folder / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=inputs, dynamic_shapes=architecture.dynamic_shapes)
    return lstm_onnx.verify(module, path, example_inputs=inputs, provider="cpu", threads=1, mutants="all")


def _check(report: ParityReport) -> None:
    assert report.in_parity, str(report)
    assert not report.survivors, str(report)
    assert len(report.mutants) > 10  # of an RNN, which has no gates
    assert all(mutant.reason for mutant in report.mutants if mutant.outcome == "equivalent")


@pytest.mark.parametrize("name", _FEW)
def test_an_architecture_and_its_mutants(name: str, tmp_path: Path) -> None:
    _check(_verified(next(item for item in ALL if item.name == name), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ALL, ids=lambda item: item.name)
def test_every_architecture_and_its_mutants(architecture: Architecture, tmp_path: Path) -> None:
    _check(_verified(architecture, tmp_path))
