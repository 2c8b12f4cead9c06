"""Numbers that nobody reads are found to be so, and others are not."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx.parity.expected import Call, Expected
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from lstm_onnx.parity.mutants.self_test import mutated, opened
from lstm_onnx.parity.mutants.unread import (
    Replace,
    replace_one_step_off,
    replace_padding,
    replace_recurrent,
    same_outputs,
)
from tests.exporter.helpers import X_LENGTHS, with_lengths

pytestmark = pytest.mark.sweep(18)

Read = Callable[["Packed", Tensor, Tensor], Tensor]


class Packed(nn.Module):
    """An LSTM of a packed sequence, and what `read` makes of it."""

    def __init__(self, read: Read, **options: int | bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.read = nn.LSTM(3, 4, batch_first=True, **options), read
        self.last = nn.LSTM(4, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.read(self, x, lengths)


def rows(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """The rows of the packed output."""
    return self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0].data


def second_layer(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """A layer that has the lengths, too."""
    y = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
    return pad_packed_sequence(self.last(y)[0], batch_first=True, total_length=x.shape[1])[0]


def masked(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """A product with a mask."""
    y = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
    y = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
    return (y * (torch.arange(x.shape[1]) < lengths[:, None])[..., None]).sum(1)


def padded(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """The mean over all steps, padding and all."""
    return padded_steps(self, x, lengths).mean(1)


def padded_steps(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """All steps, padding and all."""
    y = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
    return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]


def final(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """The state after each sequence's last step."""
    return self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][0][0] * 2


def last_step(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """The last step of the padded output, which is zeros for each sequence but those of full length."""
    y = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
    return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0][:, -1]


def last_c(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """The c of the last layer's reverse direction, which begins in the padding where it has no lengths."""
    return self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][1][-1] * 2


TWO_WAYS = {"bidirectional": True, "num_layers": 2}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("read", "options", "unread"),
    [
        (rows, {}, True),
        (masked, {}, True),
        (second_layer, {}, True),
        (padded, {}, False),
        (final, {}, False),
        (rows, {"bidirectional": True}, False),
        (rows, {"proj_size": 2}, True),
        (padded, {"proj_size": 2}, False),
    ],
)
def test_padding(read: Read, options: dict[str, int | bool], unread: bool, tmp_path: Path) -> None:
    model, graph = _exported(Packed(read, **options), tmp_path)
    assert _unread(model, graph, 0) == unread


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("read", "options", "unread"),
    [
        # What the layer above gives for a shorter sequence is not read, or not changed.
        (last_step, {}, [True, False]),
        # Without a bias, from zeros, the reverse direction of the second layer is zero before a sequence's end.
        (last_c, {"bias": False}, [False, True]),
        (last_c, {"bias": False, "proj_size": 3}, [False, True]),
        (last_c, {}, [False, False]),
    ],
)
def test_padding_of_two_directions(
    read: Read, options: dict[str, int | bool], unread: list[bool], tmp_path: Path
) -> None:
    model, graph = _exported(Packed(read, **TWO_WAYS, **options), tmp_path)
    assert [_unread(model, graph, layer) for layer in (0, 1)] == unread
    assert [_same_without_lengths(model, graph, layer) for layer in (0, 1)] == unread


def step(at: int) -> Read:
    return lambda self, x, _: self.lstm(x)[0][:, at]


def packed_step(at: int) -> Read:
    return lambda self, x, lengths: padded_steps(self, x, lengths)[:, at]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("replace", "read", "options", "unread"),
    [
        (replace_recurrent, step(0), {}, True),
        (replace_recurrent, step(0), {"proj_size": 2}, True),
        (replace_recurrent, step(1), {}, False),
        (replace_recurrent, step(0), {"bidirectional": True}, False),
        (replace_one_step_off, packed_step(0), {}, True),
        (replace_one_step_off, packed_step(1), {}, False),
        (replace_one_step_off, packed_step(0), {"bidirectional": True}, False),
    ],
)
def test_a_first_step(
    replace: Replace, read: Read, options: dict[str, int | bool], unread: bool, tmp_path: Path
) -> None:
    model, graph = _exported(Packed(read, **options), tmp_path)
    own, *others = (_replaced(model, graph, 0, number, replace) for number in (None, 1e3, -1e3))
    assert same_outputs(own, others, [_case()]) == unread
    # A single step from zeros sees no recurrence, whichever step is read.
    feeds = {"x": np.ones((3, 1, 3), np.float32), "lengths": np.ones(3, np.int64)}
    assert not same_outputs(own, others, [Expected("a step", (Call(feeds, {}, {}),), "float32", 1.0)])


def _exported(module: nn.Module, folder: Path) -> tuple[lstm_onnx.Model, onnx.ModelProto]:
    path = folder / "m.onnx"
    lstm_onnx.export(module.eval(), path, example_inputs=with_lengths(2, 4), dynamic_shapes=X_LENGTHS, check=False)
    return lstm_onnx.load(path, provider="cpu", threads=1), onnx.load(path)


def _unread(model: lstm_onnx.Model, graph: onnx.ModelProto, layer: int) -> bool:
    """Whether other numbers in place of what the lengths change leave the outputs as they are."""
    own, other = (_replaced(model, graph, layer, number) for number in (None, 1e3))
    assert same_outputs(model, [own], [_case()])
    assert not same_outputs(model, [own], [])
    return same_outputs(own, [other], [_case()])


def _replaced(
    model: lstm_onnx.Model,
    graph: onnx.ModelProto,
    layer: int,
    number: float | None,
    replace: Replace = replace_padding,
) -> lstm_onnx.Model:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    edit = Edit(copy, shapes=known_shapes(graph))
    assert replace(edit, edit.layers[layer], number)
    edit.sort()
    return opened(model, copy)


def _same_without_lengths(model: lstm_onnx.Model, graph: onnx.ModelProto, layer: int) -> bool:
    mutator = next(mutator for mutator in MUTATORS if mutator.name == "lengths ignored")
    outcome, copy = mutated(graph, mutator, layer)
    assert outcome.applied
    return same_outputs(model, [opened(model, copy)], [_case()])


def _case() -> Expected:
    x, lengths = with_lengths(3, 5)
    return Expected("a case", (Call({"x": x.numpy(), "lengths": lengths.numpy()}, {}, {}),), "float32", 1.0)
