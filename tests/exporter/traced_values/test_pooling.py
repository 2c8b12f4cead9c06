"""max_pool1d and unfold keep the size of an axis open."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # as models are written
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_onnx import ExportError
from lstm_onnx.exporter.traced_values.constants import Constants
from lstm_onnx.exporter.traced_values.function_mode import TracingMode
from lstm_onnx.exporter.traced_values.python_builtins import Builtins
from tests.exporter.helpers import X_LENGTHS, X, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(18)

POOLS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": (3,), "stride": (2,), "padding": (1,)},
    {"kernel_size": 2, "stride": 1, "padding": 1},
    {"kernel_size": 3, "stride": 2, "dilation": 2},
    {"kernel_size": 4, "stride": 3, "ceil_mode": True},
]


@contextmanager
def tracing() -> Iterator[None]:
    builtins, module = Builtins(), nn.Module()
    with builtins.replaced(), TracingMode(module, Constants(module), builtins):
        yield


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_pooling_over_one_row_is_max_pool1d(options: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 11)
    for values in (x, x[0]):
        expected = F.max_pool1d(values, **options)
        with mock.patch.object(torch, "max_pool2d", wraps=torch.max_pool2d) as pooled, tracing():
            assert torch.equal(torch.max_pool1d(values, **options), expected)
            assert torch.equal(F.max_pool1d(values, **options), expected)
            assert torch.equal(nn.MaxPool1d(**options)(values), expected)
        assert pooled.call_count == 3
    with tracing():
        indices = F.max_pool1d(x, 3, return_indices=True)[1]
    assert torch.equal(indices, F.max_pool1d(x, 3, return_indices=True)[1])


class Adaptive(nn.Module):
    """A fixed number of parts of a sequence of any length, and of a picture with a dynamic axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0].transpose(1, 2)
        picture = y.unsqueeze(1)
        return (
            F.adaptive_avg_pool1d(y, 3),
            F.adaptive_max_pool1d(y, 4),
            nn.AdaptiveMaxPool1d(2)(y),
            F.adaptive_avg_pool2d(picture, (2, 3)),
            F.adaptive_max_pool2d(picture, (None, 5)),
        )


def test_parts_of_an_open_axis_follow_its_size(tmp_path: Path) -> None:
    right(Adaptive(), signal, X, tmp_path, sizes=((1, 1), (2, 3), (3, 7), (1, 40)))


class Unequal(nn.Module):
    """Parts of unequal sizes of axes that are fixed, and parts of three axes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 60, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.lstm(x)[0][:, :1].unflatten(-1, (3, 4, 5))
        return (
            F.adaptive_max_pool1d(y[:, 0, 0], 3),
            F.adaptive_max_pool2d(y[:, 0], (1, 2)),
            F.adaptive_max_pool2d(y[:, 0], (3, 5)),
            F.adaptive_max_pool3d(y, (2, 1, None)),
            F.adaptive_avg_pool3d(y, (2, 3, 5)),
            F.adaptive_avg_pool3d(y, (None, 2, 1)),
        )


def test_parts_of_unequal_sizes(tmp_path: Path) -> None:
    right(Unequal(), signal, X, tmp_path)


class Refused(nn.Module):
    """A mean by another number, or the places of what is largest in each part."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.lstm, self.pool = nn.LSTM(3, 4, batch_first=True), pool

    def forward(self, x: Tensor) -> Any:
        return self.pool(self.lstm(x)[0].transpose(1, 2).unsqueeze(1))


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (lambda y: F.avg_pool2d(y, (1, 2), divisor_override=3), "divisor_override has no translation"),
        (lambda y: F.adaptive_max_pool2d(y, (4, 3), return_indices=True), "return_indices has no translation"),
    ],
)
def test_pools_without_a_translation_are_refused(pool: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        made(Refused(pool), signal(2, 4), X, tmp_path)


class Pooled(nn.Module):
    """Convolution, pooling and an LSTM, as for a signal; the time stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(3, 5, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2, stride=1, padding=1))
        self.pool, self.lstm = nn.MaxPool1d(3, 2, padding=1), nn.LSTM(5, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.pool(self.conv(x.transpose(1, 2))).transpose(1, 2))[0]


def test_a_module_that_pools_over_time_is_right_at_every_length(tmp_path: Path) -> None:
    made = right(Pooled(), signal, X, tmp_path, sizes=((1, 1), (3, 7), (5, 2), (2, 30)))
    assert made.exported.notes == ()


class WholePooled(nn.Module):
    """Pools over all steps by kernels of their number, which goes by the lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0].transpose(1, 2)
        steps, picture = y.size(2), y.unsqueeze(1)
        pooled = [F.max_pool1d(y, steps), F.avg_pool1d(y, (steps,)), F.avg_pool2d(picture, picture.shape[2:])[:, 0]]
        pooled += [F.max_pool2d(picture, (2, steps))[:, 0], F.avg_pool2d(picture, (3, steps), stride=1)[:, 0]]
        return torch.cat(pooled, 1)


def test_pooling_over_a_whole_axis_is_right_at_every_length(tmp_path: Path) -> None:
    made = right(WholePooled(), with_lengths, X_LENGTHS, tmp_path)
    (note,) = made.exported.notes  # the longest sequence of a batch is what all are averaged over
    assert note.startswith("the sequences of a batch are not independent")


class Bands(nn.Module):
    """An LSTM over each band and its neighbours, as windows of as many steps as there are."""

    def __init__(self, *, steps_last: bool, stride: int) -> None:
        super().__init__()
        self.lstm, self.steps_last, self.stride = nn.LSTM(6, 4, batch_first=True), steps_last, stride

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        bands = x.new_ones(5) * torch.stack([x, x.tanh()], 1).mean(-1, keepdim=True) + torch.arange(5) / 5
        if self.steps_last:
            windows = F.unfold(bands.transpose(2, 3), (3, steps), stride=(self.stride, 1))
        else:
            windows = nn.Unfold((steps, 3), stride=(1, self.stride))(bands)
            windows = windows.view(batch, 2, steps, 3, -1).transpose(2, 3).flatten(1, 3)
        each = windows.view(batch, 6, steps, -1).permute(0, 3, 2, 1).flatten(0, 1)
        return self.lstm(each)[0].view(batch, -1, steps, 4)


@pytest.mark.parametrize(("steps_last", "stride"), [(True, 1), (False, 2)])
def test_windows_over_all_steps(steps_last: bool, stride: int, tmp_path: Path) -> None:
    assert right(Bands(steps_last=steps_last, stride=stride), signal, X, tmp_path).exported.notes == ()
