"""What the metadata say of a file's states is compared with the module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ConfigError
from lstm_onnx.errors import ModelError
from lstm_onnx.metadata import Origin
from tests.architectures.architecture import seeded
from tests.module_files import with_metadata

pytestmark = pytest.mark.usefixtures("without_sweeps")


class Smoothing(nn.Module):
    """A state that is an argument, and a running mean in an attribute, which starts from 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.mean = nn.LSTMCell(3, 4), torch.full((3,), 0.5)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        h, c = self.cell(x - self.mean, state)
        return h * 2, (h, c)


STATES = {"mean.h0": "mean.hn", "state.0": "output.1.0", "state.1": "output.1.1"}
CROSSED = {**STATES, "state.0": "output.1.1", "state.1": "output.1.0"}
HALF = np.full(3, 0.5, np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smoothing") / "m.onnx"
    example = (torch.randn(1, 3), (torch.randn(1, 4), torch.randn(1, 4)))
    result = lstm_onnx.export(seeded(Smoothing)(), path, example_inputs=example)
    assert dict(result.states) == STATES
    return path


def report_of(path: Path, **changes: Any) -> lstm_onnx.ParityReport:
    copy = with_metadata(path.with_name("changed.onnx"), path, **changes)
    return lstm_onnx.verify(seeded(Smoothing)(), copy, provider="cpu", threads=1, mutants="none")


def test_a_right_file_passes(path: Path) -> None:
    report = report_of(path)
    assert report, str(report)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"initial": {}}, "self.mean of the module starts as 0.5, and the file's mean.h0 as 0; "),
        ({"initial": {"mean.h0": 2 * HALF}}, "self.mean of the module starts as 0.5, and the file's mean.h0 as 1; "),
        (
            {"states": CROSSED},
            "the metadata feed the state state.0 from output.1.1, and the next value of what",
        ),
    ],
    ids=["zeros", "ones", "crossed"],
)
def test_other_starts_and_pairs_are_not_in_parity(changes: dict[str, Any], found: str, path: Path) -> None:
    report = report_of(path, **changes)
    assert not report
    errors = [case.error for case in report.cases if case.label == "initial states, and the outputs that feed states"]
    assert any(error.startswith(found) for error in errors), errors


def test_a_module_that_was_called_since_starts_otherwise(path: Path) -> None:
    module = seeded(Smoothing)()
    module(torch.randn(1, 3), (torch.randn(1, 4), torch.randn(1, 4)))
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none")
    (failed,) = [case.error for case in report.cases if not case.passed]
    assert failed.endswith("if a call has changed it since the export, pass the module as it was then")


def test_a_pair_of_other_axes_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="which has another dtype or other axes"):
        report_of(path, states={**STATES, "mean.h0": "output.1.0", "state.0": "mean.hn"})


def test_a_state_of_a_recurrent_module_is_none_of_the_file_alone(path: Path) -> None:
    """Otherwise the cases would leave it out."""
    with pytest.raises(ModelError, match="caches and loop_states must not be states of its origins"):
        report_of(path, loop_states=("state.0",), origins={"state.0": Origin("cell", 0, 0, 0)})
