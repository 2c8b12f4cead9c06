"""Nothing that freezes a size or drops a step is kept."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError, MissingDependencyError
from lstm_onnx.exporter.arguments import arguments
from lstm_onnx.exporter.prepared import FixedSizeError, prepare
from lstm_onnx.exporter.trial import try_out
from tests.exporter.helpers import X, agree, eager, made, signal


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.position = nn.Parameter(torch.randn(16, 4))


Forward = Callable[[Any, Tensor], Tensor]


def over_a_size(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) > 100 else out


def under_a_size(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) < 3 else out


def even_sizes(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) % 2 == 0 else out


def one_size_above_the_other(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(0) > x.size(1) else out


def one_size_alone(self: Base, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) == 4 else out


WRONG = [over_a_size, under_a_size, even_sizes, one_size_above_the_other, one_size_alone]


@pytest.mark.parametrize("shapes", ["named", "auto"])
@pytest.mark.parametrize("forward", WRONG, ids=lambda forward: forward.__name__)
def test_what_does_otherwise_at_other_sizes_is_not_kept(forward: Forward, shapes: str, tmp_path: Path) -> None:
    auto = torch.export.Dim.AUTO
    module = type("Module", (Base,), {"forward": forward})()
    target = tmp_path / "made.onnx"
    target.write_bytes(b"there before")
    with pytest.raises(ExportError):
        made(module, signal(2, 4), X if shapes == "named" else {"x": {0: auto, 1: auto}}, tmp_path)
    assert target.read_bytes() == b"there before"
    assert [path.name for path in tmp_path.iterdir()] == ["made.onnx"]


def test_constants_made_from_sizes_stay_open(tmp_path: Path) -> None:
    class Mean(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0].sum(1) / torch.tensor([x.size(1)])

    module = Mean().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    agree(result.run(signal(3, 9)), eager(module, signal(3, 9)))


def test_a_module_with_a_limit_of_its_own_is_kept(tmp_path: Path) -> None:
    class Limited(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0] + self.position[: x.size(1)]

    module = Limited().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    agree(result.run(signal(3, 16)), eager(module, signal(3, 16)))


class Plain(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(Plain(), signal(2, 4), X, tmp_path_factory.mktemp("trial")).path


def tried(path: Path) -> tuple[str, ...]:
    prepared = prepare(Plain(), arguments(Plain(), signal(2, 4), X))
    return try_out(path, prepared, lstm_onnx.load(path, provider="cpu").story)


def test_a_right_file_passes(good: Path) -> None:
    assert tried(good) == ()


def test_wrong_weights_fail(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("/W"):
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(-numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(FixedSizeError, match=r"output is off by .* at batch 3, time 6, so it was not kept; something"):
        tried(tmp_path / "wrong.onnx")


def test_a_dropped_step_fails(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    last = proto.graph.node[-1]
    last.output[0] = "whole"
    for name, value in (("starts", 0), ("ends", 4), ("axes", 1)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    proto.graph.node.append(onnx.helper.make_node("Slice", ["whole", "starts", "ends", "axes"], ["output"]))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(
        FixedSizeError, match=r"output has shape \(3, 4, 4\) where the module gives \(3, 6, 4\) at batch"
    ):
        tried(tmp_path / "wrong.onnx")


def test_a_fixed_size_fails(good: Path, tmp_path: Path) -> None:
    proto = onnx.load(good)
    last = proto.graph.node[-1]
    last.output[0] = "whole"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 4, 4]), "shape"))
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["whole", "shape"], ["output"]))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(FixedSizeError, match=r"the exported file fails at batch 3, time 6, where the module runs"):
        tried(tmp_path / "wrong.onnx")


def test_without_onnx_runtime_the_way_out_is_named(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("no ONNX Runtime")

    prepared = prepare(Plain(), arguments(Plain(), signal(2, 4), X))
    story = lstm_onnx.load(good, provider="cpu").story
    monkeypatch.setattr("lstm_onnx.exporter.trial.load", absent)
    with pytest.raises(MissingDependencyError, match=r"check=False leaves that out"):
        try_out(good, prepared, story)


def test_a_module_that_runs_at_no_size_that_is_tried_is_noted(good: Path) -> None:
    class Picky(Plain):
        """Wants what no row that is repeated or cut still has."""

        def forward(self, x: Tensor) -> Tensor:
            if x.data_ptr() != example.data_ptr():
                raise ValueError("not the example")
            return super().forward(x)

    (example,) = signal(2, 4)
    prepared = prepare(Picky(), arguments(Picky(), (example,), X))
    story = lstm_onnx.load(good, provider="cpu").story
    example = example.clone()
    assert try_out(good, prepared, story) == (
        "the file was not tried out at other shapes: the module itself runs at none of those tried",
    )


def test_without_check_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.exporter.module.try_out", None)
    assert made(Plain(), signal(2, 4), X, tmp_path, check=False).exported.notes == ()
