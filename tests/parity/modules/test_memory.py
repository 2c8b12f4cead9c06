"""A verification keeps few of many features in memory, such as a language model's tokens, and draws no large videos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.expected import Expected
from lstm_onnx.parity.modules.verification import ModuleVerification

pytestmark = pytest.mark.sweep(3)

FEATURES = 1000


class Scores(nn.Module):
    """A number for each of many tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


@pytest.fixture
def verification(tmp_path: Path) -> ModuleVerification:
    module = Scores().eval()
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=(torch.randn(2, 5, 3),))
    return ModuleVerification(lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1), module)


def _kept_features(case: Expected) -> set[int]:
    """How many features the memory behind each of PyTorch's outputs has."""
    arrays = [array for call in case.calls for part in (call.native, call.reference) for array in part.values()]
    return {(array if array.base is None else array.base).shape[-1] for array in arrays}


def test_sweeps_and_further_cases_keep_few_features(verification: ModuleVerification) -> None:
    results = list(verification.results())
    assert all(result.passed for result in results)
    by_kind = {kind: [case for case in verification.expected if case.kind == kind] for kind in ("whole", "sweep")}
    further = [case for target in verification.harder() for case in target.expected]
    assert by_kind["sweep"]
    assert further
    for case in (*by_kind["sweep"], *(case for case in further if "small outputs" not in case.label)):
        assert max(_kept_features(case)) <= 64, case.label
    # Every feature is compared somewhere.
    assert any(_kept_features(case) == {FEATURES} for case in by_kind["whole"])


def test_of_further_files_one_is_open_at_a_time(verification: ModuleVerification) -> None:
    assert all(result.passed for result in verification.results())
    files: list[lstm_onnx.Model] = []
    for target in verification.harder():
        if all(target.model is not one for one in (verification.model, *files)):
            files.append(target.model)
        assert sum(not one.closed for one in files) <= 1
        assert not verification.model.closed
    assert len(files) > 1


class Video(nn.Module):
    """The last state of a cell whose states are pictures, (batch, channels, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        batch, time, _, height, width = frames.shape
        h = frames.new_zeros(batch, 2, height, width)
        for t in range(time):
            h = torch.tanh(self.gate(torch.cat((frames[:, t], h), 1)))
        return h


def test_pictures_of_many_steps_are_small(tmp_path: Path) -> None:
    module, axes = Video().eval(), ({0: "batch", 1: "time", 3: "height", 4: "width"},)
    lstm_onnx.export(module, tmp_path / "m.onnx", example_inputs=(torch.randn(2, 5, 1, 6, 7),), dynamic_shapes=axes)
    verification = ModuleVerification(lstm_onnx.load(tmp_path / "m.onnx", provider="cpu", threads=1), module)
    assert verification.subject.sizes(5, 24) == {"batch": 5, "time": 24, "height": 26, "width": 27}
    assert verification.subject.sizes(2, 384) == {"batch": 2, "time": 384, "height": 5, "width": 6}
