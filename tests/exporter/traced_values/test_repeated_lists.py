"""Lists multiplied by a size that is not fixed, as torch joins them, makes tensors of them, or does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from tests.exporter.helpers import X, made, right, signal

pytestmark = pytest.mark.sweep(4)


class OfLists(nn.Module):
    """A context for each step, a start token for each sequence, all by lists of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.embedding = nn.LSTM(3, 4, batch_first=True), nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, (hn, _) = self.lstm(x)
        batch, steps, _ = y.shape
        context = torch.cat([hn[0]] * steps, 1).view(batch, steps, -1)
        pairs = torch.stack(steps * [hn[0], -hn[0]], dim=1)[:, :steps]
        start = self.embedding(torch.tensor([3] * batch))
        table = torch.tensor([[0.5, 2.0]] * steps)[:, 1:]
        return torch.cat([y + context + pairs, torch.cat([start.unsqueeze(1)] * steps, dim=-2) * table], -1)


def test_what_torch_makes_of_them_is_right_at_every_size(tmp_path: Path) -> None:
    assert right(OfLists(), signal, X, tmp_path).exported.notes == ()


class ByOldConstructors(OfLists):
    """Tensors as they were made before torch.tensor."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        batch, steps, _ = y.shape
        start = self.embedding(torch.autograd.Variable(torch.LongTensor([3] * batch)))
        gate = torch.FloatTensor(batch, steps, 1).fill_(0.5) * torch.FloatTensor([2.0, 1.0, 4.0, 3.0])
        assert isinstance(start, torch.FloatTensor)
        assert not isinstance(start, torch.LongTensor)
        return y * gate + start.unsqueeze(1)


def test_those_of_old_constructors_too(tmp_path: Path) -> None:
    assert right(ByOldConstructors(), signal, X, tmp_path).exported.notes == ()


USES: list[Callable[[Tensor, list[Tensor]], Tensor]] = [
    lambda y, rows: torch.cat([y[:, 0], *rows], 1),
    lambda y, rows: torch.cat([y[:, 0]] + rows, 1),  # noqa: RUF005 - in Python it is another operation
    lambda _y, rows: torch.cat(rows[:-1] + rows[1:], 1),
    lambda y, rows: y[:, 0] * len(rows),
    lambda _y, rows: nn.utils.rnn.pad_sequence(rows),
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_other_uses_fix_the_size_and_are_refused(use: Callable[[Tensor, list[Tensor]], Tensor], tmp_path: Path) -> None:
    class Used(OfLists):
        def forward(self, x: Tensor) -> Tensor:
            y = self.lstm(x)[0]
            return use(y, [y[:, -1]] * y.shape[1])

    with pytest.raises(lstm_onnx.ExportError, match=r"test_repeated_lists\.py:\d+: .*time of x .*would be fixed"):
        made(Used(), signal(2, 4), X, tmp_path)


class ByOthers(OfLists):
    """The constructors of other dtypes, and their classes as dtypes."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x.type(torch.DoubleTensor).type(torch.FloatTensor))[0]
        batch = y.size(0)
        twice = torch.ShortTensor([2] * batch).to(y)[:, None, None]
        return y * twice * torch.DoubleTensor(batch, 1, 1).fill_(3).to(y)


def test_those_of_other_dtypes_too(tmp_path: Path) -> None:
    assert right(ByOthers(), signal, X, tmp_path).exported.notes == ()
