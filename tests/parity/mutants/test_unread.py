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
from lstm_onnx.parity.mutants import Edit, opened
from lstm_onnx.parity.mutants.unread import replace_padding, same_outputs
from tests.exporter.helpers import X_LENGTHS, with_lengths

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
    y = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]
    return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0].mean(1)


def final(self: Packed, x: Tensor, lengths: Tensor) -> Tensor:
    """The state after each sequence's last step."""
    return self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[1][0][0] * 2


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
def test_padding(read: Read, options: dict[str, int | bool], unread: bool | None, tmp_path: Path) -> None:
    module, path = Packed(read, **options).eval(), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=with_lengths(2, 4), dynamic_shapes=X_LENGTHS, check=False)
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    copy = onnx.load(path)
    edit = Edit(copy)
    applied = replace_padding(edit, edit.layers[0], 1e3)
    assert applied == (unread is not None)
    if applied:
        edit.sort()
        x, lengths = with_lengths(3, 5)
        feeds = {"x": x.numpy(), "lengths": lengths.numpy()}
        assert same_outputs(model, [opened(model, copy)], [_case(feeds)]) == unread
        assert not same_outputs(model, [opened(model, copy)], [])


def _case(feeds: dict[str, np.ndarray]) -> Expected:
    return Expected("a case", (Call(feeds, {}, {}),), "float32", 1.0)
