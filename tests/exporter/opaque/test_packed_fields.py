"""Fields of a packed sequence that a module's code reads or replaces."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.exporter.helpers import X_LENGTHS, agree, eager, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(27)


class Fields(nn.Module):
    """What user code does with the fields of a packed sequence."""

    def __init__(self, between: Callable[[Any, Any], Any], *, sort: bool = False, first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.second = nn.LSTM(3, 4, batch_first=first), nn.LSTM(4, 4, bidirectional=True, batch_first=first)
        self.linear, self.between, self.sort, self.first = nn.Linear(4, 4), between, sort, first

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        if not self.first:
            x = x.transpose(0, 1)
        packed = pack_padded_sequence(x, lengths, batch_first=self.first, enforce_sorted=self.sort)
        return self.between(self, self.lstm(packed)[0])


def padded_again(module: Any, packed: Any) -> Any:
    packed, (h, _) = module.second(packed)
    return [*pad_packed_sequence(packed, batch_first=True), h]


def dropped_out(module: Any, packed: Any) -> Any:
    data = nn.functional.dropout(packed.data, 0.5, module.training)
    indices = packed.sorted_indices, packed.unsorted_indices
    return padded_again(module, rnn.PackedSequence(data, packed.batch_sizes, *indices))


def unpacked_fields(module: Any, packed: Any) -> Any:
    data, sizes, *indices = packed
    return padded_again(module, rnn.PackedSequence(data * 2, sizes, *indices))


FIELDS: dict[str, Callable[[Any, Any], Any]] = {
    "dropout": dropped_out,
    "unpacking": unpacked_fields,
    "_replace": lambda m, packed: padded_again(m, packed._replace(data=m.linear(packed.data))),
    "reductions": lambda _, packed: [packed.data.mean(0), packed.data.amax(0), packed[0].sum(), packed.data.size(0)],
    "batch_sizes": lambda _, packed: [packed.batch_sizes, packed.data.sum(0)],
}


def different(batch: int, time: int) -> tuple[Tensor, Tensor]:
    """No two lengths are equal, where there are enough: torch leaves open the order of equal ones."""
    (x,) = signal(batch, time)
    return x, torch.tensor([time - i % time for i in range(batch)])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("case", FIELDS)
def test_fields_of_a_packed_sequence(case: str, first: bool, tmp_path: Path) -> None:
    right(Fields(FIELDS[case], first=first), different, X_LENGTHS, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("case", ["dropout", "_replace", "reductions"])
def test_fields_of_a_sequence_that_the_caller_sorted(case: str, tmp_path: Path) -> None:
    def in_order(batch: int, time: int) -> tuple[Tensor, Tensor]:
        x, lengths = with_lengths(batch, time)
        return x, lengths.sort(descending=True)[0]

    right(Fields(FIELDS[case], sort=True), in_order, X_LENGTHS, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize("case", ["_replace", "batch_sizes"])
def test_lengths_in_any_order_give_what_pytorch_gives_without_enforce_sorted(case: str, tmp_path: Path) -> None:
    """Where PyTorch raises: a graph cannot."""
    x, lengths = torch.randn(4, 6, 3), torch.tensor([2, 6, 1, 5])
    with pytest.raises(RuntimeError, match="sorted in decreasing order"):
        Fields(FIELDS[case], sort=True)(x, lengths)
    file = made(Fields(FIELDS[case], sort=True), (x, lengths.sort(descending=True)[0]), X_LENGTHS, tmp_path)
    agree(file.run((x, lengths)), eager(Fields(FIELDS[case]), (x, lengths)))
