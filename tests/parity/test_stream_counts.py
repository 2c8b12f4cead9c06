"""What a file says of when its streams give their steps is compared with the stream."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.stream_counts import stream_problems
from tests.architectures.architecture import seeded
from tests.module_files import with_metadata

pytestmark = pytest.mark.usefixtures("without_sweeps")


class Halved(nn.Module):
    """A convolution with a stride, which looks ahead, before the LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv1d(4, 4, 5, stride=2, padding=2), nn.LSTM(4, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]
        return y


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("halved") / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    options: dict[str, Any] = {"dynamic_shapes": axes, "states": "explicit", "max_delay": 1}
    lstm_onnx.export(seeded(Halved)(), path, example_inputs=torch.randn(2, 9, 4), **options)
    return path


def problems(path: Path, copy: Path, **changes: Any) -> list[str]:
    """Of the file, with another description of its streams."""
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        streaming = model.metadata.streaming
    assert streaming is not None
    with lstm_onnx.load(with_metadata(copy, path, streaming=replace(streaming, **changes)), "cpu", threads=1) as model:
        return list(stream_problems(model))


def test_a_right_file_has_none(path: Path, tmp_path: Path) -> None:
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        streaming = model.metadata.streaming
    assert streaming is not None
    assert (streaming.delay, streaming.hop, streaming.first) == (1, 2, {"output": 3})
    assert problems(path, tmp_path / "same.onnx") == []
    assert problems(path, tmp_path / "also true.onnx", hop=4, period=4, settled=5) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"delay": 0}, "delay of the stream is 0, but flush returns up to 1 steps"),
        ({"delay": 2}, "delay of the stream is 2, but flush returns up to 1 steps"),
        ({"hop": 1}, "hop of the stream is 1, but this many steps return varying numbers of steps of output"),
        ({"hop": 3}, "hop of the stream is 3, but this many steps return varying numbers of steps of output"),
        ({"period": 3}, "period of the stream is 3, but this many steps return varying numbers of steps of output"),
        ({"first": {"output": 2}}, "output of a stream begins after 2 steps, but it begins after 3"),
        ({"first": {"output": 4}}, "output of a stream begins after 4 steps, but it begins after 3"),
        ({"first": {"output": 900}}, "output of a stream begins after 900 steps, but it begins after 3"),
        ({"first": {}}, "do not say after how many steps of a stream output begins"),
        ({"steps": "conv.cache"}, "count of steps, conv.cache, is "),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_is_not_so_is_named(changes: dict[str, Any], found: str, path: Path, tmp_path: Path) -> None:
    texts = problems(path, tmp_path / "wrong.onnx", **changes)
    assert any(found in text for text in texts), texts


def test_a_wrong_description_is_not_in_parity_with_and_without_pytorch(path: Path, tmp_path: Path) -> None:
    module, golden = seeded(Halved)(), tmp_path / "golden.npz"
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none", golden=golden)
    assert report, str(report)
    assert any(case.kind == "pool" for case in report.cases)
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        streaming = model.metadata.streaming
    assert streaming is not None
    copy = with_metadata(tmp_path / "late.onnx", path, streaming=replace(streaming, delay=2))
    report = lstm_onnx.verify_golden(copy, golden, provider="cpu", threads=1, mutants="none")
    assert [case.label for case in report.cases if not case.passed] == ["streams as the metadata describe them"]


def test_slots_of_other_places_are_not_stepped_together(tmp_path: Path) -> None:
    """The pool goes by the metadata where results depend on the number of a step."""

    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 6, batch_first=True)
            self.register_buffer("places", torch.randn(1, 300, 4))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.lstm(x + self.places[:, : x.shape[1]])[0]
            return y

    module, path = seeded(Placed)(), tmp_path / "m.onnx"
    axes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 9, 4), dynamic_shapes=axes, states="explicit")
    with lstm_onnx.load(path, "cpu", threads=1) as model:
        streaming = model.metadata.streaming
    assert streaming is not None
    assert streaming.positions
    copy = with_metadata(tmp_path / "wrong.onnx", path, streaming=replace(streaming, positions=False))
    report = lstm_onnx.verify(module, copy, provider="cpu", threads=1, mutants="none")
    assert {case.kind for case in report.cases if not case.passed} == {"pool"}
