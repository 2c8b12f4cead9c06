"""A file is kept for the sizes at which it is right: branches on sizes, limits asked and found, steps that run out."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ConfigError, ExportError
from tests.exporter.helpers import X, agree, eager, made, signal

Dim = torch.export.Dim
Forward = Callable[[Any, Tensor], Any]


class Double(nn.Module):
    """Decides by a size, below the module that is exported."""

    def forward(self, out: Tensor) -> Tensor:
        return out * 2 if out.shape[1] > 20 else out


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.conv = nn.Conv1d(3, 3, 5)
        self.strided = nn.Conv1d(3, 3, 4, stride=3)
        self.louder = Double()
        self.config = {"longest": 20}
        self.position = nn.Parameter(torch.randn(16, 4))


def module(forward: Forward) -> nn.Module:
    made_module: nn.Module = type("Module", (Base,), {"forward": forward})().eval()
    return made_module


def scaled(out: Tensor, x: Tensor) -> Tensor:
    if x.size(1) > 20:  # decided in a helper
        return out * 2
    return out


# Branches that no single limit keeps out, or that only an upper one does: refused, with the line and the way out.


def over_a_size(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0] * 1e-3
    return out * 2 if x.shape[1] > 20 else out  # here


def halves(self: Any, x: Tensor) -> Tensor:
    if x.shape[1] > 20:  # here
        return torch.cat([self.lstm(x[:, :20])[0], self.lstm(x[:, 20:])[0]], 1) * 0.02
    return self.lstm(x)[0] * 0.02


def in_a_helper(self: Any, x: Tensor) -> Tensor:
    return scaled(self.lstm(x)[0], x)


def in_a_submodule(self: Any, x: Tensor) -> Tensor:
    return self.louder(self.lstm(x)[0])


def by_a_config(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out.flip(1) if x.shape[1] > self.config["longest"] else out  # here


def by_division(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out if x.shape[1] // 7 < 3 else out * 2  # here


def by_a_float(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out if x.shape[1] / 10 < 2.05 else out * 2  # here


def cut_to_a_limit(self: Any, x: Tensor) -> Tensor:
    return self.lstm(x[:, :21])[0]  # here


def chosen_integers(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return (out if x.shape[1] <= 20 else -out).argmax(-1)  # here


def another_dtype(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out if x.shape[1] <= 20 else out.double()  # here


BOUNDED_ABOVE = [
    over_a_size,
    halves,
    in_a_helper,
    in_a_submodule,
    by_a_config,
    by_division,
    by_a_float,
    cut_to_a_limit,
    chosen_integers,
    another_dtype,
]


@pytest.mark.parametrize("forward", BOUNDED_ABOVE, ids=lambda forward: forward.__name__)
def test_a_branch_far_above_the_example_is_refused_and_kept_within_its_limit(forward: Forward, tmp_path: Path) -> None:
    target = tmp_path / "made.onnx"
    target.write_bytes(b"there before")
    with pytest.raises(ExportError, match=r"was not kept; at test_axis_limits\.py:\d+: .* torch\.where or") as caught:
        made(module(forward), signal(2, 4), X, tmp_path)
    assert "torch.export.Dim('time', max=20)" in str(caught.value)
    assert target.read_bytes() == b"there before"
    found = module(forward)
    result = made(found, signal(2, 4), {"x": {0: "batch", 1: Dim("time", max=20)}}, tmp_path)
    assert result.exported.notes == ()
    assert result.model.metadata.axis_limits == {"time": (1, 20)}
    for time in (1, 13, 20):
        agree(result.run(signal(2, time)), eager(found, signal(2, time)))


def even_sizes(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) % 2 == 0 else out


def padded_when_odd(self: Any, x: Tensor) -> Tensor:
    if x.size(1) % 2:
        x = F.pad(x, (0, 0, 0, 1))
    return self.lstm(x)[0]


def one_size_above_the_other(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(0) > x.size(1) else out


def the_example_alone(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) == 4 else out


def one_size_far_away(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) == 50 else out


def many_rows(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(0) > 12 else out


def many_numbers(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.numel() > 500 else out


def as_text(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if f"{x.shape[1]}" == "33" else out


def counted_loop(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    for _ in range(x.size(1) // 4):
        out = out * 0.9
    return out


WRONG = [
    even_sizes,
    padded_when_odd,
    one_size_above_the_other,
    the_example_alone,
    one_size_far_away,
    many_rows,
    many_numbers,
    as_text,
    counted_loop,
]


@pytest.mark.parametrize("forward", WRONG, ids=lambda forward: forward.__name__)
def test_what_does_otherwise_at_other_sizes_is_not_kept(forward: Forward, tmp_path: Path) -> None:
    target = tmp_path / "made.onnx"
    target.write_bytes(b"there before")
    with pytest.raises(ExportError):
        made(module(forward), signal(2, 4), X, tmp_path)
    assert target.read_bytes() == b"there before"
    assert [path.name for path in tmp_path.iterdir()] == ["made.onnx"]


@pytest.mark.parametrize("forward", [even_sizes, one_size_above_the_other], ids=lambda forward: forward.__name__)
def test_axes_that_torch_may_fix_are_held_open_too(forward: Forward, tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        made(module(forward), signal(2, 4), {"x": {0: Dim.AUTO, 1: Dim.AUTO}}, tmp_path)


# Below some size another way, or none at all: kept, with that size as the least.


def under_a_size(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) < 3 else out


def reflected(self: Any, x: Tensor) -> Tensor:
    """Pads as EnCodec does, which has a way of its own for what is too short to be reflected."""
    x, extra = x.transpose(1, 2), 0
    if x.shape[-1] <= 6:
        extra = 6 - x.shape[-1] + 1
        x = F.pad(x, (0, extra))
    x = F.pad(x, (6, 2), "reflect")
    return self.lstm(x[..., : x.shape[-1] - extra].transpose(1, 2))[0]


def plainly_reflected(self: Any, x: Tensor) -> Tensor:
    return self.lstm(F.pad(x.transpose(1, 2), (3, 0), mode="reflect").transpose(1, 2))[0]


def convolved(self: Any, x: Tensor) -> Tensor:
    return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


def strided(self: Any, x: Tensor) -> Tensor:
    return self.gru(F.gelu(self.strided(x.transpose(1, 2))).transpose(1, 2))[0]


def first_steps_left_out(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, 2:])[0]


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


# No limit of an axis keeps the steps from running out: the file fails there, as the module does.


def no_steps_now_and_then(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, : x.size(1) % 5])[0]


def steps_by_the_batch(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, x.size(0) :])[0]


def steps_by_value(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[:, x[0, :, 0] > 0])[0]


def rows_by_value(self: Any, x: Tensor) -> Tensor:
    return self.gru(x[x[:, 0, 0] > 0])[0]


EMPTY = """
import sys
import numpy as np
import lstm_onnx

model = lstm_onnx.load(sys.argv[1], provider="cpu", threads=1)
batch, time = map(int, sys.argv[2:])
try:
    model.run({"x": -np.ones((batch, time, 3), np.float32)})
except lstm_onnx.RunError as error:
    assert "gru/at_least_one_step" in str(error), error
else:
    raise AssertionError("it ran")
"""


@pytest.mark.parametrize(
    ("forward", "size"),
    [(no_steps_now_and_then, (2, 5)), (steps_by_the_batch, (3, 3)), (steps_by_value, (2, 4)), (rows_by_value, (2, 4))],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_steps_that_run_out_fail_in_the_file(forward: Forward, size: tuple[int, int], tmp_path: Path) -> None:
    found = module(forward)

    def positive(batch: int, time: int) -> tuple[Tensor, ...]:
        return tuple(x.abs() for x in signal(batch, time))

    result = made(found, positive(2, 4), X, tmp_path)
    for batch, time in ((2, 4), (1, 7), (3, 11)):
        agree(result.run(positive(batch, time)), eager(found, positive(batch, time)))
    # In a process of its own: without the nodes that make it fail, ONNX Runtime's GRU ends it.
    subprocess.run([sys.executable, "-c", EMPTY, str(result.path), *map(str, size)], check=True, timeout=120)


# Limits that are asked for.


def both_ends(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.shape[1] > 40 or x.shape[1] < 5 else out


def test_limits_that_are_asked_for_are_kept(tmp_path: Path) -> None:
    found = module(both_ends)
    result = made(found, signal(2, 9), {"x": {0: "batch", 1: Dim("time", min=5, max=40)}}, tmp_path)
    assert result.exported.notes == ()
    assert result.model.metadata.axis_limits == {"time": (5, 40)}
    for time in (5, 40):
        agree(result.run(signal(3, time)), eager(found, signal(3, time)))


def test_no_size_outside_of_the_limits_is_tried(tmp_path: Path) -> None:
    seen: set[tuple[int, int]] = set()

    def forward(self: Any, x: Tensor) -> Tensor:
        if isinstance(x.shape[1], int):
            seen.add((x.shape[0], x.shape[1]))
        out = self.lstm(x)[0]
        return out * 2 if x.shape[1] > 100 else out

    shapes = {"x": {0: Dim("batch", min=2, max=3), 1: Dim("time", min=3, max=12)}}
    made(module(forward), signal(2, 4), shapes, tmp_path)
    assert {batch for batch, _ in seen} <= {2, 3}
    assert {time for _, time in seen} == set(range(3, 13)) & {time for _, time in seen}
    assert {3, 4, 12} <= {time for _, time in seen}


def test_an_example_outside_of_the_limits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the axis time has size 4 in the example, and must be from 7 to 9"):
        made(module(under_a_size), signal(2, 4), {"x": {1: Dim("time", min=7, max=9)}}, tmp_path)
    with pytest.raises(ConfigError, match=r"the axis time has size 4 in the example, and must be 7 or more"):
        made(module(under_a_size), signal(2, 4), {"x": {1: Dim("time", min=7)}}, tmp_path)


def test_without_a_trial_steps_are_still_counted(tmp_path: Path) -> None:
    result = made(module(first_steps_left_out), signal(2, 9), X, tmp_path, check=False)
    assert result.model.metadata.axis_limits == {"time": (3, None)}
    assert result.exported.notes == ("time is 3 or more in the file: gru would get 0 steps, and needs one at least",)


def test_a_module_that_stops_at_a_size_gives_a_file_that_does(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[1] > 30:
            raise ValueError("no more than 30 steps")
        return self.lstm(x)[0]

    result = made(module(forward), signal(2, 4), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (1, 30)}
    assert "ValueError: no more than 30 steps" in result.exported.notes[0]


def test_sizes_that_a_module_takes_now_and_then_are_no_limit(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[1] % 4:
            raise ValueError("a multiple of four")
        return self.lstm(x)[0].unflatten(1, (-1, 4)).mean(2)

    found = module(forward)
    result = made(found, signal(2, 8), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (4, None)}
    for time in (4, 12, 400):
        agree(result.run(signal(2, time)), eager(found, signal(2, time)))


def test_both_axes_decide_together(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out * 2 if x.shape[1] > 15 and x.shape[0] > 8 else out

    with pytest.raises(ExportError, match="so it was not kept"):
        made(module(forward), signal(2, 4), X, tmp_path)


def test_a_decision_behind_another_is_found_by_its_number(tmp_path: Path) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        if x.shape[1] > 15:
            out = out.clone()
            if x.shape[1] > 1000:
                out = out * 2
        return out

    with pytest.raises(ExportError, match=r"at batch 2, time 1001, so it was not kept"):
        made(module(forward), signal(2, 4), X, tmp_path)


def test_what_takes_too_long_to_try_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lstm_onnx.exporter.trials.axis_limits._MOST_COST", 10**6)

    def forward(self: Any, x: Tensor) -> Tensor:
        out = self.lstm(x)[0]
        return out * 2 if x.shape[1] > 300_000 else out

    result = made(module(forward), signal(2, 4), X, tmp_path)
    assert result.model.metadata.axis_limits == {"time": (1, 300_000)}
    assert "more takes too long to try" in result.exported.notes[0]


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
    assert 41 in metadata.size_boundaries["time"]


# Two axes.


class Pair(Base):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = self.lstm(x)[0], self.lstm(y)[0]
        if x.shape[1] == y.shape[1]:
            return first.sum(1) + second.sum(1)
        return first.sum(1) - second.sum(1)


def test_axes_that_a_comparison_ties_are_refused(tmp_path: Path) -> None:
    shapes = {"x": {0: "batch", 1: "time"}, "y": {0: "batch", 1: "other"}}
    with pytest.raises(ExportError, match="time and other are one size in the graph, and the module takes two"):
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
    assert "makes text of a size; a file cannot go by such text" in note
    agree(result.run(signal(3, 9)), eager(module(forward), signal(3, 9)))


def test_the_file_itself_holds_its_limits(tmp_path: Path) -> None:
    path = made(module(reflected), signal(2, 9), X, tmp_path).path
    assert lstm_onnx.load(path, provider="cpu").metadata.axis_limits == {"time": (7, None)}
