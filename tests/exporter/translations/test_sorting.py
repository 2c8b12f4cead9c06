"""Stable sorts keep equal numbers in their own order, also of more than 16 rows; medians and distinct numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from lstm_onnx import ExportError
from tests.exporter.helpers import X_LENGTHS, X, agree, eager, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(12)


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_equal_numbers_keep_their_order(dtype: torch.dtype, descending: bool, tmp_path: Path) -> None:
    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
            numbers, order = torch.sort(lengths.to(dtype), stable=True, descending=descending)
            return self.lstm(x)[0][order], numbers, order, torch.argsort(lengths, stable=True)

    right(Sorting(), with_lengths, X_LENGTHS, tmp_path, sizes=((1, 1), (5, 2), (40, 6)))


class SortingPacker(nn.Module):
    """Sorts its sequences by length, and puts them back or not."""

    def __init__(self, *, stable: bool, back: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.stable, self.back = nn.LSTM(3, 4, batch_first=True), stable, back

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        ordered, order = torch.sort(lengths, descending=True, stable=self.stable)
        packed = nn.utils.rnn.pack_padded_sequence(x[order], ordered, batch_first=True)
        h: Tensor = self.lstm(packed)[1][0][0]
        return h[order.argsort()] if self.back else h


@pytest.mark.parametrize(("stable", "back"), [(True, False), (False, True)])
def test_rows_that_are_sorted_stably_or_put_back(stable: bool, back: bool, tmp_path: Path) -> None:
    right(SortingPacker(stable=stable, back=back), with_lengths, X_LENGTHS, tmp_path, sizes=((1, 1), (5, 2), (40, 6)))


def test_explicit_states_are_in_the_order_of_a_stable_sort(tmp_path: Path) -> None:
    """And results that are put back do not depend on which order of equal lengths PyTorch takes."""
    module = SortingPacker(stable=False, back=True)
    file = made(module, with_lengths(2, 4), X_LENGTHS, tmp_path, states="explicit")
    assert any("in the order of this sort" in note for note in file.exported.notes)
    x, lengths = torch.randn(40, 5, 3), torch.arange(40) % 5 + 1
    inputs = {"x": x.numpy(), "lengths": lengths.numpy()}
    agree([file.model.run(inputs)["output"]], eager(module, (x, lengths)))
    states = torch.randn(2, 1, 40, 4)
    order = torch.sort(lengths, descending=True, stable=True)[1]
    packed = nn.utils.rnn.pack_padded_sequence(x[order], lengths[order], batch_first=True)
    with torch.no_grad():
        expected = module.lstm(packed, (states[0], states[1]))[1][0]
    names = {"lstm.h0": states[0].numpy(), "lstm.c0": states[1].numpy()}
    agree([file.model.run({**inputs, **names})["lstm.hn"]], [expected.numpy()])


@pytest.mark.parametrize("states", ["zero", "explicit"])
def test_an_order_that_torch_leaves_open_is_refused(states: str, tmp_path: Path) -> None:
    """From 17 rows on PyTorch's own order of equal lengths is another than that of any stable sort."""
    equal = torch.zeros(64, dtype=torch.int64)
    if torch.equal(torch.sort(equal, descending=True)[1], torch.arange(64)):
        pytest.skip("this processor's PyTorch sorts stably")
    with pytest.raises(ExportError, match=r"test_sorting.py:\d+: .*sort does not define the order of equal numbers"):
        made(SortingPacker(stable=False, back=False), with_lengths(2, 4), X_LENGTHS, tmp_path, states=states)


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_medians_and_kth_values(dim: int, keepdim: bool, tmp_path: Path) -> None:
    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            # A NaN where x is above 1, an infinity where it is below -1.
            marked = x.masked_fill(x > 1, torch.nan).masked_fill(x < -1, -torch.inf)
            y = self.lstm(x)[0]
            whole = (100 * y).int()
            return (
                *torch.median(y, dim, keepdim),
                torch.median(marked, dim, keepdim).values,
                torch.kthvalue(marked, 1, dim, keepdim).values,
                torch.kthvalue(whole, 1, dim, keepdim).values,
                torch.median(whole),
                y.median(),
                marked.median(),
            )

    right(Middle(), signal, X, tmp_path, sizes=((1, 1), (3, 7), (2, 6)))


@pytest.mark.parametrize(("dim", "keepdim"), [(0, True), (1, False), (-1, True)])
def test_medians_of_the_numbers_that_are_not_nan(dim: int, keepdim: bool, tmp_path: Path) -> None:
    class Middle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            # A NaN where x is below 0.5, an infinity where it is above 1.
            marked = x.masked_fill(x > 1, torch.inf).masked_fill(x < 0.5, torch.nan)
            whole = (100 * self.lstm(x)[0]).int()
            values, places = torch.nanmedian(marked, dim, keepdim)
            at = places if keepdim else places.unsqueeze(dim)
            found = marked.gather(dim, at)
            return values, found, torch.nanmedian(whole, dim, keepdim).values, marked.nanmedian()

    module = Middle()
    file = right(module, signal, X, tmp_path, sizes=((1, 1), (3, 7), (2, 6)))
    x = torch.zeros(2, 3, 3)  # NaN alone
    agree(file.run(x), eager(module, (x,)))


def test_places_in_sorted_numbers(tmp_path: Path) -> None:
    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = self.lstm(x)[0]
            rounded = torch.round(y * 4).contiguous()
            edges, whole = torch.tensor([-1.0, 0.0, 0.0, 1.0]), rounded.long()
            return (
                y,
                torch.searchsorted(edges, rounded),
                torch.searchsorted(edges, rounded, right=True),
                torch.searchsorted(rounded.sort(-1)[0], rounded.flip(-1).contiguous(), side="right"),
                torch.searchsorted(torch.tensor([0, 1]), whole, out_int32=True),
                torch.searchsorted(edges, whole),
            )

    right(Places(), signal, X, tmp_path)


def test_a_nan_that_is_replaced_already_is_not_replaced_again(tmp_path: Path) -> None:
    class Replacing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.lstm(x)[0]
            return torch.where(y.isnan(), torch.scalar_tensor(9.0), y).argmax(-1)

    nodes = onnx.load(made(Replacing(), signal(2, 4), X, tmp_path).exported.path).graph.node
    assert [node.op_type for node in nodes].count("IsNaN") == 1


class Distinct(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        everything: dict[str, bool] = {"return_inverse": True, "return_counts": True}
        return *torch.unique(x, **everything), *torch.unique_consecutive(x, **everything)


NAN, LARGEST = math.nan, 2**31 - 1


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ([[3.0, 3.0, -1.0]], [[NAN, 2.0, 2.0], [1.0, 3.0, 3.0]]),
        ([[LARGEST, LARGEST, 0]], [[LARGEST, 5, 5], [5, 0, LARGEST]]),
        ([[True, True, False]], [[False, True, True], [False, False, True]]),
    ],
)
def test_distinct_numbers_and_runs_of_equal_ones(first: list[Any], other: list[Any], tmp_path: Path) -> None:
    module = Distinct()
    file = made(module, torch.tensor(first * 2), {"x": {0: "rows"}}, tmp_path)
    for x in (first, other, first * 3):
        agree(file.run(torch.tensor(x)), eager(module, (torch.tensor(x),)))


def test_equal_labels_in_sequence_are_joined(tmp_path: Path) -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            labels: Tensor = torch.unique_consecutive(self.lstm(x)[0][0].argmax(-1), dim=-1)
            return labels[labels != 0]

    right(Greedy(), signal, {"x": {1: "time"}}, tmp_path, sizes=((2, 1), (2, 30)))


def test_runs_of_equal_rows_are_refused(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows: Tensor = torch.unique_consecutive(x, dim=0)
            return rows

    with pytest.raises(ExportError, match="unique_consecutive along an axis of several has no translation"):
        made(Rows(), torch.ones(2, 3), {"x": {0: "rows"}}, tmp_path)
