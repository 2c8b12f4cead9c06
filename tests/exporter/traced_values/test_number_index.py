"""Indices that are one number in a tensor, beside Python's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from lstm_onnx.exporter.traced_values.constants import Constants
from lstm_onnx.exporter.traced_values.function_mode import TracingMode
from lstm_onnx.exporter.traced_values.number_index import at_number, rolled
from lstm_onnx.exporter.traced_values.python_builtins import Builtins

X = torch.arange(24.0).reshape(2, 3, 4)


def _open(_: Any) -> bool:
    return True


@pytest.mark.parametrize(
    "index",
    [
        lambda i: i,
        lambda i: (slice(None), i),
        lambda i: (..., i),
        lambda i: (..., i, slice(1, None)),
        lambda i: (0, i),
        lambda i: (i, 0),
        lambda i: (None, i, slice(None), 1),
        lambda i: (slice(0, 1), i, ...),
    ],
)
@pytest.mark.parametrize("number", [1, 0, -1])
def test_a_number_reads_and_writes_as_a_row_does(index: Any, number: int) -> None:
    found = at_number(_open, (X, index(torch.tensor(number))))
    assert found is not None
    (tensor, items), axis = found
    wanted = X[index(number)]
    assert torch.equal(tensor[items].select(axis, 0), wanted)
    for value in (7.5, torch.tensor(7.5), torch.full(wanted.shape[-1:], 7.5), wanted * 10, wanted[None] * 10):
        one, other = X.clone(), X.clone()
        one[index(number)] = value
        written = at_number(_open, (other, index(torch.tensor(number)), value))
        assert written is not None
        tensor, items, row = written[0]
        tensor[items] = row
        assert torch.equal(one, other)


@pytest.mark.parametrize("index", [(0, 1), (torch.tensor([1]),), (torch.tensor(1), torch.tensor(0)), (True,)])
def test_other_indices_are_left(index: Any) -> None:
    assert at_number(_open, (X, index)) is None
    assert at_number(lambda _: False, (X, torch.tensor(1))) is None


def test_a_number_of_a_traced_tensor_reads_and_writes() -> None:
    def marked(y: Any, lengths: torch.Tensor) -> Any:
        with TracingMode(nn.Module(), Constants(nn.Module()), Builtins()):
            y = y.clone()
            first, second = lengths[0].item(), lengths[1].item()
            y[:, first - 1] = y[0, second - 1]
        return y

    traced = make_fx(marked, tracing_mode="fake")(X, torch.tensor([1, 1]))
    for lengths in (torch.tensor([1, 3]), torch.tensor([3, 2])):
        assert torch.equal(traced(X, lengths), marked(X, lengths))


@pytest.mark.parametrize("shift", [0, 1, -2, 7])
def test_a_roll_by_a_number(shift: int) -> None:
    found = rolled(_open, X, torch.tensor(shift), -1)
    assert found is not None
    assert torch.equal(found[0], torch.roll(X, shift, -1))
    assert rolled(_open, X, shift, 1) is None
    assert rolled(_open, X, torch.tensor(shift)) is None


def test_what_a_row_is_assigned_has_its_dtype() -> None:
    found = at_number(_open, (X, (slice(None), torch.tensor(1)), torch.arange(4)))
    assert found is not None
    assert found[0][2].dtype == X.dtype
