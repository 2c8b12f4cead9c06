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
        lambda y: y[:, list(range(y.shape[1]))],
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


def test_what_is_a_range_is_known_while_tracing(tmp_path: Path) -> None:
    class Known(LastSteps):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            y, rows = self.lstm(x)[0], range(x.shape[0])
            chosen = y[rows, 0] if isinstance(rows, range) and isinstance(range(3), range) else y[:, 1]
            return chosen + sum(range(3))

    right(Known(), signal, X, tmp_path, sizes=((3, 7), (1, 2)))
