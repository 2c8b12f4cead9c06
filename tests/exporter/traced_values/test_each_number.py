"""Numbers of a tensor that Python takes one by one: they compute as torch's, or as Python's."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from tests.exporter.helpers import X, agree, eager, made, signal

pytestmark = pytest.mark.sweep(8)

Counts = Callable[[Tensor], Tensor]
COUNTS: list[Counts] = []
SHAPES = {"x": {0: "batch", 1: "time"}, "counts": {0: "batch"}}


def counted(counts: Counts) -> Counts:
    COUNTS.append(counts)
    return counts


@counted
def of_tensors(counts: Tensor) -> Tensor:
    return torch.tensor([int(n * 0.29) for n in counts])  # 29 of 100, computed in float32


@counted
def of_numbers(counts: Tensor) -> Tensor:
    return torch.tensor([int(n * 0.29) for n in counts.tolist()])  # 28


@counted
def of_both(counts: Tensor) -> Tensor:
    return torch.tensor([int((n + k / 3) * 0.3) for n, k in zip(counts, counts.tolist(), strict=True)])


@counted
def in_order(counts: Tensor) -> Tensor:
    return torch.tensor(sorted(counts.tolist(), reverse=True))


@counted
def largest_of_a_generator(counts: Tensor) -> Tensor:
    return torch.tensor([max(n for n in counts.tolist())])


@counted
def largest_or_default(counts: Tensor) -> Tensor:
    return torch.tensor([max(counts.tolist(), default=0)])


@counted
def sum_of_a_generator(counts: Tensor) -> Tensor:
    return torch.tensor([sum((n // 2 for n in counts.tolist()), 1)])


@counted
def of_single_rows(counts: Tensor) -> Tensor:
    found = counts.tolist()
    first, second, last = counts.numpy()[0], sorted(found)[1], counts.numpy().tolist()[-1]
    return torch.tensor([second + n * found[1] - first * last for n in found])


@counted
def of_slices(counts: Tensor) -> Tensor:
    found = counts.tolist()
    return torch.tensor(found[::-1]) - sum(found[1:])


class Counting(nn.Module):
    def __init__(self, counts: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.counts = nn.LSTM(3, 4, batch_first=True), counts

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return self.lstm(x)[0] + self.counts(counts).view(-1, 1, 1)


@pytest.mark.parametrize("counts", COUNTS)
def test_they_are_computed_with_as_in_pytorch(counts: Counts, tmp_path: Path) -> None:
    module = Counting(counts).eval()
    file = made(module, (torch.randn(2, 5, 3), torch.tensor([5, 3])), SHAPES, tmp_path)
    for numbers in ([3, 100, 29], [57, 58, 116, 140, 4]):
        inputs = torch.randn(len(numbers), 4, 3), torch.tensor(numbers)
        agree(file.run(inputs), eager(module, inputs))


def first_of_sorted(counts: Tensor) -> Tensor:
    found = counts.tolist()
    found.sort(reverse=True)
    return torch.tensor(found)


def test_a_sort_in_place_shows_in_other_numbers_than_the_examples(tmp_path: Path) -> None:
    with pytest.raises(lstm_onnx.ExportError, match="depends on their order"):
        made(Counting(first_of_sorted).eval(), (torch.randn(2, 5, 3), torch.tensor([5, 3])), SHAPES, tmp_path)


class Reading(nn.Module):
    def __init__(self, read: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.lstm, self.read = nn.LSTM(3, 4, batch_first=True), read

    def forward(self, x: Tensor, counts: Tensor) -> Any:
        return self.lstm(x)[0], self.read(x, counts)


def _padded(x: Tensor, counts: Tensor) -> Tensor:
    packed = nn.utils.rnn.pack_padded_sequence(x, counts, batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=list(counts)[0])[0]  # noqa: RUF015


@pytest.mark.parametrize(
    ("read", "message"),
    [(lambda _, counts: list(counts), "the rows of a tensor one by one"), (_padded, "which it takes one by one")],
)
def test_what_stands_for_all_rows_is_no_result_and_no_number_of_steps(read: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(lstm_onnx.ExportError, match=message):
        made(Reading(read).eval(), (torch.randn(2, 5, 3), torch.tensor([5, 3])), SHAPES, tmp_path)


def test_numbers_are_no_output_in_a_list_either(tmp_path: Path) -> None:
    module = Reading(lambda _, counts: counts.tolist()).eval()
    file = made(module, (torch.randn(2, 5, 3), torch.tensor([5, 3])), SHAPES, tmp_path)
    assert list(file.exported.outputs) == ["output.0"]


def _by_a_key(numbers: list[int]) -> int:
    return max(numbers, key=lambda n: -n)


def _of_pairs(numbers: list[int]) -> int:
    return max(enumerate(numbers), key=operator.itemgetter(1))[0]


@pytest.mark.parametrize("largest", [_by_a_key, _of_pairs], ids=["key", "pairs"])
def test_a_comparison_by_other_numbers_is_refused(largest: Any, tmp_path: Path) -> None:
    def counts(given: Tensor) -> Tensor:
        return torch.tensor([largest(given.tolist())])

    with pytest.raises(lstm_onnx.ExportError, match="one by one by a key function"):
        made(Counting(counts).eval(), (torch.randn(2, 5, 3), torch.tensor([5, 3])), SHAPES, tmp_path)


class Sharing(nn.Module):
    """numpy's arrays share the memory of their tensors, or are copies; what is clamped is not in the example."""

    def __init__(self, copies: bool) -> None:
        super().__init__()
        self.lstm, self.copies = nn.LSTM(3, 4, batch_first=True), copies

    def forward(self, x: Tensor) -> Tensor:
        first = x[:, 0, 0] * 1
        array = first.numpy()
        kept = np.array(array) if self.copies else np.asarray(array)
        torch.as_tensor(kept).clamp_(-5, 5)
        return self.lstm(x)[0] + first.view(-1, 1, 1) + torch.from_numpy(kept).mean()


@pytest.mark.parametrize("copies", [False, True])
def test_arrays_share_memory_as_in_pytorch(copies: bool, tmp_path: Path) -> None:
    module = Sharing(copies).eval()
    file = made(module, signal(2, 4), X, tmp_path)
    inputs = tuple(10 * item for item in signal(3, 5))
    agree(file.run(inputs), eager(module, inputs))
