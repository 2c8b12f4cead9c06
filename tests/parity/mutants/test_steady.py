"""A mutant that changes nothing but outputs that are the same in every case is no survivor; the report says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from tests.architectures.architecture import seeded


class Tagger(nn.Module):
    """An LSTM with a head."""

    features, factor = 3, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, self.features)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(self.factor)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.lstm(x)[0])
        return y


class Dead(Tagger):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x) - 100)


class DeadWithin(Tagger):
    """Each feature is its bias."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.lstm(x)[0] - 2))
        return y


class OneClass(Tagger):
    features = 1

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(super().forward(x), -1)


class Partly(Tagger):
    """The second LSTM reaches no output but one that is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"y": super().forward(x), "dead": torch.relu(self.other(x)[0] - 2)}


class Tiny(Tagger):
    factor = 1e-20


class Huge(Tagger):
    factor = 1e25

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(x)[0]
        return y


def report_of(make: type[nn.Module], path: Path) -> lstm_onnx.ParityReport:
    module = seeded(make)()
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 7, 4), dynamic_shapes=axes)
    return lstm_onnx.verify(module, path, provider="cpu", threads=1)


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    ("make", "note"),
    [
        (Dead, "output was 0.0 in every case"),
        (DeadWithin, "output was the same in every case"),
        (OneClass, "output was 1.0 in every case"),
        (Partly, "dead was 0.0 in every case"),
        (Tiny, "output was the same in every case"),
        (Huge, ""),
    ],
)
def test_a_right_file_is_proven(make: type[nn.Module], note: str, tmp_path: Path) -> None:
    report = report_of(make, tmp_path / "m.onnx")
    assert report, str(report)
    assert any(one.startswith(note) for one in report.notes) or not note, report.notes
    reasons = [mutant.reason for mutant in report.mutants if "the same in every case" in mutant.reason]
    assert bool(reasons) == (make not in (Huge, Tiny)), report.mutants


def test_another_constant_is_not_in_parity(tmp_path: Path) -> None:
    class Higher(Dead):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e-5

    lstm_onnx.export(seeded(Higher)(), tmp_path / "m.onnx", example_inputs=torch.randn(2, 7, 4))
    assert not lstm_onnx.verify(seeded(Dead)(), tmp_path / "m.onnx", provider="cpu", threads=1, mutants="none")
