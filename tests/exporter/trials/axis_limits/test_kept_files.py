"""What is right at all sizes is kept without a note, and says where to try it."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made, signal

from .modules import Base, Dim, Forward, both_ends, module, reflected

pytestmark = pytest.mark.sweep(18)

# Right at all sizes, and kept as they were.


def larger_of_two(self: Any, x: Tensor) -> Tensor:
    return self.lstm(x)[0] * max(x.shape[1], 20)


def rounded_up(self: Any, x: Tensor) -> Tensor:
    """Pads to a whole number of strides, by floats, as EnCodec's convolutions do."""
    length = x.shape[1]
    ideal = (math.ceil((length - 4) / 2 + 1) - 1) * 2 + 4
    return self.lstm(F.pad(x, (0, 0, 0, ideal - length)))[0]


def padded_to_four(self: Any, x: Tensor) -> Tensor:
    return self.lstm(F.pad(x, (0, 0, 0, (4 - x.shape[1] % 4) % 4)))[0]


def either_way(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return torch.cond(x.shape[1] > 20, lambda y: y * 2, lambda y: y.clone(), (out,))


def all_zeros(self: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = self.lstm(x)[0]
    return out, out * 0, torch.softmax(out, -1).sum(-1) - 1


def tiny(self: Any, x: Tensor) -> Tensor:
    return self.lstm(x)[0] * 1e-9


def chaotic(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0].abs().clamp(max=1)
    for _ in range(40):
        out = 3.99 * out * (1 - out)
    return out


def chosen(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    out = self.lstm(x)[0]
    return out.argmax(-1), out > 0


def infinite(self: Any, x: Tensor) -> Tensor:
    return self.lstm(x)[0].masked_fill(x[..., :1] > 0, float("-inf"))


RIGHT = [larger_of_two, rounded_up, padded_to_four, either_way, all_zeros, tiny, chaotic, chosen, infinite]


@pytest.mark.parametrize("forward", RIGHT, ids=lambda forward: forward.__name__)
def test_what_is_right_at_all_sizes_is_kept_without_a_word(forward: Forward, tmp_path: Path) -> None:
    found = module(forward)
    result = made(found, signal(2, 4), X, tmp_path)
    assert result.exported.notes == ()
    assert result.model.metadata.axis_limits == {}
    if forward is chaotic:
        return  # what a last bit makes of it, no file has
    for batch, time in ((1, 1), (3, 19), (2, 20), (2, 21)):
        agree(result.run(signal(batch, time)), eager(found, signal(batch, time)))


def test_sizes_near_which_the_code_may_do_something_else_are_in_the_file(tmp_path: Path) -> None:
    metadata = made(module(larger_of_two), signal(2, 4), X, tmp_path).model.metadata
    assert metadata.size_boundaries["time"] == (20, 21)
    metadata = made(module(both_ends), signal(2, 9), {"x": {1: Dim("time", min=5, max=40)}}, tmp_path).model.metadata
    assert max(metadata.size_boundaries["time"]) <= 40  # what the code does at more is not run


# Two axes.


class Pair(Base):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = self.lstm(x)[0], self.lstm(y)[0]
        if x.shape[1] == y.shape[1]:
            return first.sum(1) + second.sum(1)
        return first.sum(1) - second.sum(1)


def test_axes_that_a_comparison_ties_are_refused(tmp_path: Path) -> None:
    shapes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "other"}}
    with pytest.raises(ExportError, match="time and other became one size in the graph, and in the module they may"):
        made(Pair().eval(), signal(2, 4) * 2, shapes, tmp_path)
    with pytest.raises(ExportError, match="so it was not kept"):
        made(Pair().eval(), (*signal(2, 4), *signal(2, 6)), shapes, tmp_path)


def test_axes_of_one_size_in_the_module_are_tied_without_a_word(tmp_path: Path) -> None:
    class Sum(Base):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.lstm(x)[0] + self.lstm(y)[0]

    shapes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "other"}}
    result = made(Sum().eval(), signal(2, 4) * 2, shapes, tmp_path)
    assert result.exported.notes == ()
    agree(result.run(signal(3, 5) * 2), eager(Sum().eval(), signal(3, 5) * 2))


def test_a_size_that_is_only_printed_is_noted(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        label = f"{x.shape}"
        return self.lstm(x)[0] + 0 * len(label[:1])

    result = made(module(forward), signal(2, 4), X, tmp_path)
    (note,) = result.exported.notes
    assert "turns a size into text; a file cannot do that" in note
    agree(result.run(signal(3, 9)), eager(module(forward), signal(3, 9)))


def test_the_file_itself_holds_its_limits(tmp_path: Path) -> None:
    path = made(module(reflected), signal(2, 9), X, tmp_path).path
    assert lstm_onnx.load(path, provider="cpu").metadata.axis_limits == {"time": (7, None)}
