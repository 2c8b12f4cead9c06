"""A file that is right from some size on says so."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made, signal

from .modules import Forward, first_steps_left_out, module, reflected, strided, under_a_size

pytestmark = pytest.mark.sweep(9)


def plainly_reflected(self: Any, x: Tensor) -> Tensor:
    return self.lstm(F.pad(x.transpose(1, 2), (3, 0), mode="reflect").transpose(1, 2))[0]


def convolved(self: Any, x: Tensor) -> Tensor:
    return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


def last_steps_left_out(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, :-2])[0]


def every_second_step(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, 1::2])[0]


def half_of_the_steps(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, : x.size(1) // 2])[0]


def framed(self: Any, x: Tensor) -> Tensor:
    return self.gru(x.unfold(1, 6, 3).mean(-1))[0]


def normalised_over_time(self: Any, x: Tensor) -> Tensor:
    return self.lstm(F.instance_norm(x.transpose(1, 2)).transpose(1, 2))[0]


def divided_by_their_spread(self: Any, x: Tensor) -> Tensor:
    spread = ((x - x.mean(1, keepdim=True)) ** 2).sum(1, keepdim=True) / (x.size(1) - 1)  # NaN of one step
    return self.lstm(x / spread.sqrt())[0]


def summed_differences(self: Any, x: Tensor) -> list[Any]:
    steps = self.lstm(x)[0].unbind(1)
    return [steps[-1], sum(after - before for before, after in itertools.pairwise(steps))]  # the number 0


LEAST = [
    (under_a_size, 3),
    (reflected, 7),
    (plainly_reflected, 4),
    (convolved, 5),
    (strided, 4),
    (first_steps_left_out, 3),
    (last_steps_left_out, 3),
    (every_second_step, 2),
    (half_of_the_steps, 2),
    (framed, 6),
    (normalised_over_time, 2),
    (divided_by_their_spread, 2),
]

RUN = """
import sys
import numpy as np
import lstm_onnx

model = lstm_onnx.load(sys.argv[1], provider="cpu", threads=1)
for time in range(int(sys.argv[2]), 12):
    for batch in (1, 3):
        x = np.ones((batch, time, 3), np.float32)
        assert all(np.isfinite(array).all() and array.size for array in model.run({"x": x}).values())
"""


@pytest.mark.parametrize(("forward", "least"), LEAST, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_file_that_is_right_from_some_size_on_says_so(forward: Forward, least: int, tmp_path: Path) -> None:
    found = module(forward)
    result = made(found, signal(2, 9), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (least, None)}
    (note,) = result.exported.notes
    assert note.startswith(f"time is {least} or more in the file: ")
    for batch, time in ((1, least), (3, least), (2, least + 1), (2, 30)):
        agree(result.run(signal(batch, time)), eager(found, signal(batch, time)))
    # In a process of its own: without a step, ONNX Runtime's GRU ends it.
    subprocess.run([sys.executable, "-c", RUN, str(result.path), str(least)], check=True, timeout=120)


def test_a_tensor_that_is_a_number_at_small_sizes_raises_the_least_one(tmp_path: Path) -> None:
    result = made(module(summed_differences), signal(2, 9), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (2, None)}
    assert "forward returns 1 tensors, and 2 for the example" in result.exported.notes[0]


@pytest.mark.parametrize("parts", [3, 5])
def test_chunks_that_are_fewer_at_some_sizes(parts: int, tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, ...]:
        return self.gru(x)[0].chunk(parts, 1)

    if parts == 5:  # of 6, 7, 8, 11, 12 and 16 steps there are fewer
        with pytest.raises(ExportError, match="forward returns 4 tensors, and 5 for the example"):
            made(module(forward), signal(2, 5), X, tmp_path)
    else:
        result = made(module(forward), signal(2, 9), X, tmp_path)
        assert result.model.metadata.axis_limits == {"time": (5, None)}


def test_a_module_that_takes_each_fourth_size_keeps_the_small_ones(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.gru(x[:, 3::4] + x[:, ::4])[0]

    found = module(forward)
    result = made(found, signal(2, 24), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (4, None)}
    for batch, time in ((1, 4), (3, 8), (2, 40)):
        agree(result.run(signal(batch, time)), eager(found, signal(batch, time)))


def test_a_size_that_matters_with_some_numbers_alone(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        if x.mean() > 0 and x.shape[1] > 2:
            out = out * 3
        return out

    found = module(forward)
    for sign in (1, -1):
        for axes in (X, {"x": {0: "rows", 1: "time"}}):
            result = made(found, (sign * signal(2, 5)[0].abs(),), axes, tmp_path)
            assert result.model.metadata.axis_limits == {"time": (3, None)}


def test_a_branch_for_one_row_bounds_the_batch(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out.squeeze(0) if x.size(0) == 1 else out  # here

    result = made(module(forward), signal(2, 4), X, tmp_path)
    assert result.model.metadata.axis_limits == {"batch": (2, None)}
    (note,) = result.exported.notes
    assert "output has shape (1, 4, 4) where the module gives (4, 4)" in note
    assert "x.size(0) == 1 else out  # here" in note


def test_a_branch_for_all_axes_at_one_bounds_the_last(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out * 2 if x.numel() == 3 else out

    assert made(module(forward), signal(2, 4), X, tmp_path).model.metadata.axis_limits == {"time": (2, None)}


def test_an_example_below_the_least_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"reflected|if x.shape\[-1\] <= 6"):
        made(module(reflected), signal(2, 4), X, tmp_path)


class Neighbours(nn.Module):
    """What is known of each neighbour goes to its place in a grid."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        grid = torch.zeros_like(places, dtype=x.dtype)
        return grid.masked_scatter(places.bool(), self.lstm(x)[1][0][0])


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_fewer_rows_than_the_places_of_the_example_are_tried_with_fewer_places(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    def inputs(rows: int) -> tuple[Tensor, Tensor]:
        places = torch.zeros(3, 6, 4, dtype=dtype)
        places.view(18, 4)[torch.arange(rows) * 2] = 1
        return torch.randn(5, rows, 3), places

    module = Neighbours().eval()
    result = made(module, inputs(7), {"x": {0: "time", 1: "rows"}, "places": None}, tmp_path)
    assert result.model.metadata.axis_limits == {}
    assert result.exported.notes == ()
    for rows in (1, 4, 9):
        example = inputs(rows)
        agree(result.run(example), eager(module, example))
