"""Ranges of a size that is not fixed: as an index, and where they are anything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from tests.exporter.helpers import X_LENGTHS, X, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(18)


class LastSteps(nn.Module):
    """The last step of each sequence, the steps from the end, and one that is written into."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = self.lstm(x)[0]
        batch, steps, _ = y.shape
        last = y[range(batch), lengths - 1] + y[np.arange(batch), lengths // 2]
        back = y.index_select(1, torch.tensor(range(steps - 1, -1, -1))).clone()
        back[range(len(y)), lengths - 1] = last
        return last, back


def test_an_index_is_right_at_every_size(tmp_path: Path) -> None:
    assert right(LastSteps(), with_lengths, X_LENGTHS, tmp_path).exported.notes == ()


@pytest.mark.parametrize(
    "use",
    [
        lambda y: y * (3 in list(range(y.shape[1]))),
        lambda y: y * list(range(y.shape[1])).index(1),
        lambda y: y * len(range(y.shape[1])),
        lambda y: y * (3 in range(y.shape[1])),
    ],
)
def test_other_uses_fix_the_size_and_are_refused(use: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    class Used(LastSteps):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return use(self.lstm(x)[0])

    with pytest.raises(lstm_onnx.ExportError, match=r"test_ranges\.py:\d+: .*time of x .*would be fixed"):
        made(Used(), signal(2, 4), X, tmp_path)


def test_an_element_of_a_list_that_is_as_long_as_an_axis_is_refused(tmp_path: Path) -> None:
    class Used(LastSteps):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            y = self.lstm(x)[0]
            return y[:, list(range(y.shape[1]))[1:]]

    with pytest.raises(lstm_onnx.ExportError, match=r"test_ranges\.py:\d+: .*a slice of a range or list"):
        made(Used(), signal(2, 4), X, tmp_path)


def test_what_is_a_range_is_known_while_tracing(tmp_path: Path) -> None:
    class Known(LastSteps):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            y, rows = self.lstm(x)[0], range(x.shape[0])
            chosen = y[rows, 0] if isinstance(rows, range) and isinstance(range(3), range) else y[:, 1]
            return chosen + sum(range(3))

    right(Known(), signal, X, tmp_path, sizes=((3, 7), (1, 2)))


def backwards(y: Tensor) -> Tensor:
    steps = list(range(0, y.shape[1], 2))
    steps.reverse()
    return y[:, steps] if isinstance(steps, list) and isinstance([1], list) else y


@pytest.mark.parametrize(
    "use",
    [
        lambda y: y[:, list(range(y.shape[1]))],
        lambda y: y[list(range(len(y))), -1],
        lambda y: y + torch.LongTensor(list(range(y.shape[1])))[:, None] * list(range(2))[1],
        lambda y: y + torch.from_numpy(np.array(range(y.shape[1])))[:, None],
        lambda y: torch.stack([y[:, t] for t in range(y.shape[1] - 1, y.shape[1] - 3, -1)], 1),
        backwards,
    ],
)
def test_a_list_of_all_steps_and_as_many_steps_at_all_sizes(use: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    class Used(LastSteps):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return use(self.lstm(x)[0])

    right(Used(), signal, X, tmp_path, sizes=((1, 2), (3, 3), (4, 8)))


class Blocks(LastSteps):
    """The sums of blocks of 8 steps."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y = self.lstm(x)[0]
        return torch.stack([y[:, at : at + 8].sum(1) for at in range(0, x.shape[1], 8)], 1)


def test_blocks_of_an_axis_that_has_one_block_at_most(tmp_path: Path) -> None:
    def axes(most: int) -> dict[str, dict[int, object]]:
        return {"x": {0: "batch", 1: torch.export.Dim("time", max=most)}}

    right(Blocks(), signal, axes(8), tmp_path, sizes=((1, 1), (3, 7), (2, 8)))
    with pytest.raises(lstm_onnx.ExportError, match=r"time of x .*would be fixed"):
        made(Blocks(), signal(2, 4), axes(9), tmp_path)
