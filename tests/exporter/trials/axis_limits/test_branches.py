"""A file in which a branch on a size was decided is refused, or kept within the branch's limit."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X, agree, eager, made, signal

from .modules import Dim, Forward, module

pytestmark = pytest.mark.sweep(12)


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
    chosen_integers,
    another_dtype,
]


@pytest.mark.sweep(9)
@pytest.mark.parametrize("forward", BOUNDED_ABOVE, ids=lambda forward: forward.__name__)
def test_a_branch_far_above_the_example_is_refused_and_kept_within_its_limit(forward: Forward, tmp_path: Path) -> None:
    target = tmp_path / "made.onnx"
    target.write_bytes(b"there before")
    file = "modules" if forward is in_a_submodule else "test_branches"
    with pytest.raises(ExportError, match=rf"was not kept; at {file}\.py:\d+: .* torch\.where or") as caught:
        made(module(forward), signal(2, 4), X, tmp_path)
    assert "torch.export.Dim('time', max=20)" in str(caught.value)
    assert target.read_bytes() == b"there before"
    found = module(forward)
    result = made(found, signal(2, 4), {"x": {0: "batch", 1: Dim("time", max=20)}}, tmp_path)
    assert result.exported.notes == ()
    assert result.model.metadata.axis_limits == {"time": (1, 20)}
    for time in (1, 13, 20):
        agree(result.run(signal(2, time)), eager(found, signal(2, time)))


def viewed_when_even(self: Any, x: Tensor) -> Tensor:
    if x.size(1) % 2 == 0:
        x = x.reshape(x.size(0), x.size(1) // 2, 6)[..., :3]
    return self.lstm(x)[0]


def padded_until_even(self: Any, x: Tensor) -> Tensor:
    while x.size(1) % 2:
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


def a_few_sizes_far_away(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if (x.size(1) - 140) ** 2 < 4 else out


def a_remainder_beyond_a_size(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) > 100 and x.size(1) % 11 == 5 else out


def an_attribute_beyond_a_size(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(1) > 100 and x.size(1) > self.config["total"] else out


def many_rows(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.size(0) > 12 else out


def many_numbers(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.numel() > 500 else out


def as_text(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if f"{x.shape[1]}" == "33" else out


def one_shape(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    return out * 2 if x.shape == (4, 61, 3) else out


def one_size_of_each_axis(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    if x.size(0) == 4 and x.size(1) == 61:
        out = out * 2
    return out


def counted_loop(self: Any, x: Tensor) -> Tensor:
    out = self.lstm(x)[0]
    for _ in range(x.size(1) // 4):
        out = out * 0.9
    return out


WRONG = [
    viewed_when_even,
    padded_until_even,
    one_size_above_the_other,
    the_example_alone,
    one_size_far_away,
    a_few_sizes_far_away,
    a_remainder_beyond_a_size,
    an_attribute_beyond_a_size,
    many_rows,
    many_numbers,
    as_text,
    one_shape,
    one_size_of_each_axis,
    counted_loop,
]


def test_what_to_write_in_place_of_an_if_on_a_remainder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"compute how many: x\[:, : x\.shape\[1\] // 2 \* 2\]"):
        made(module(padded_until_even), signal(2, 4), X, tmp_path)


@pytest.mark.parametrize("forward", WRONG, ids=lambda forward: forward.__name__)
def test_what_does_otherwise_at_other_sizes_is_not_kept(forward: Forward, tmp_path: Path) -> None:
    target = tmp_path / "made.onnx"
    target.write_bytes(b"there before")
    with pytest.raises(ExportError):
        made(module(forward), signal(2, 4), X, tmp_path)
    assert target.read_bytes() == b"there before"
    assert [path.name for path in tmp_path.iterdir()] == ["made.onnx"]


@pytest.mark.parametrize("forward", [padded_until_even, one_size_above_the_other], ids=lambda forward: forward.__name__)
def test_axes_that_torch_may_fix_are_held_open_too(forward: Forward, tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        made(module(forward), signal(2, 4), {"x": {0: Dim.AUTO, 1: Dim.AUTO}}, tmp_path)


class Episodes(nn.Module):
    """Steps of all environments in one axis, (time * batch, ...), as PPO keeps them; each step's states by `done`."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, done: Tensor) -> Tensor:
        found = []
        for step, ended in zip(x.reshape(-1, 2, 3), done.reshape(-1, 2), strict=False):  # here
            kept = (1 - ended).view(1, -1, 1)
            out, (h, c) = self.lstm(step.unsqueeze(0), (kept * h, kept * c))
            found.append(out)
        return torch.cat(found).flatten(0, 1)


def episodes(steps: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(steps)
    x, h, c = (torch.randn(shape, generator=generator) for shape in ((2 * steps, 3), (1, 2, 4), (1, 2, 4)))
    return x, h, c, torch.arange(2 * steps) % 3 % 2.0


def test_sizes_that_must_grow_together_in_multiples_are_tried(tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = Episodes()
    shapes = {"x": {0: "n"}, "h": {}, "c": {}, "done": {0: "k"}}
    with pytest.raises(ExportError, match=r"output has shape \(4, 4\) where the module gives \(8, 4\) at n 8, k 8"):
        made(found, episodes(2), shapes, tmp_path)
    path = made(found, episodes(2), shapes, tmp_path, check=False).path
    report = lstm_onnx.verify(found, path, provider="cpu", threads=1, example_inputs=episodes(2))
    assert "n 6, k 12: has shape (4, 4), PyTorch's is (6, 4)" in str(report)
    assert not report
