"""Packed sequences in whole modules: every way to pack and to pad, and what has no form."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstm_onnx import ExportError
from lstm_onnx.exporter.opaque.packed_sequences import PaddedSequence, pack, pad, replace_packing_functions
from tests.exporter.helpers import X_LENGTHS, Inputs, X, agree, eager, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(27)


class Packing(nn.Module):
    """Packs, runs, pads."""

    def __init__(self, pad: dict[str, Any], *, pack_first: bool = True, sort: bool = False, **lstm: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pack_first = pack_first
        self.lstm = nn.LSTM(3, 4, batch_first=pack_first, **lstm)
        self.sort = sort
        self.pad = pad

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.pack_first:
            x = x.transpose(0, 1)
        packed = pack_padded_sequence(x, lengths, batch_first=self.pack_first, enforce_sorted=self.sort)
        packed, (h, _) = self.lstm(packed)
        total = self.pad.get("total_length")
        options = {**self.pad, "total_length": total(x) if callable(total) else total}
        out, counted = pad_packed_sequence(packed, **options)
        return out, counted, h


def short(batch: int, time: int) -> tuple[Tensor, Tensor]:
    """The longest is shorter than the time, where it can be."""
    x, lengths = with_lengths(batch, time)
    return x, lengths.clamp(max=max(1, time - 2))


def up_to_five(batch: int, time: int) -> tuple[Tensor, Tensor]:
    x, lengths = with_lengths(batch, time)
    return x, lengths.clamp(max=5)


FIRST = {"batch_first": True}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], Inputs]] = {
    "trimmed": (FIRST, {}, short),
    "sorted": (FIRST, {"sort": True}, with_lengths),
    "time": ({**FIRST, "total_length": lambda x: x.size(1)}, {}, short),
    "more than the time": ({**FIRST, "total_length": 9}, {}, with_lengths),
    "less than the time": ({**FIRST, "total_length": 5}, {}, up_to_five),
    "the time and three": ({**FIRST, "total_length": lambda x: x.size(1) + 3}, {}, with_lengths),
    "marked": ({**FIRST, "padding_value": -7.5, "total_length": lambda x: x.size(1)}, {}, with_lengths),
    "marked and longer": ({**FIRST, "padding_value": -7.5, "total_length": 9}, {}, with_lengths),
    "time first": ({}, {"pack_first": False}, short),
    "packed batch first, padded time first": ({}, {}, short),
    "packed time first, padded batch first": (FIRST, {"pack_first": False}, short),
    "both directions, two layers": (FIRST, {"bidirectional": True, "num_layers": 2}, short),
    "projected": (FIRST, {"proj_size": 2}, short),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.sweep(9)
@pytest.mark.parametrize("case", CASES)
def test_packs_and_pads_as_torch_does(case: str, tmp_path: Path) -> None:
    padding, options, inputs = CASES[case]
    right(Packing(padding, **options), inputs, X_LENGTHS, tmp_path)


class Bare(nn.Module):
    """The smallest: what pad returns, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def padded(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


class Direct(Bare):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.padded(x, lengths)


def test_lengths_that_count_to_few_steps_are_refused(tmp_path: Path) -> None:
    x, lengths = with_lengths(2, 4)
    with pytest.raises(ExportError, match="lengths holds lengths as uint8, which counts to 255 steps; pass int64"):
        made(Direct(), (x, lengths.to(torch.uint8)), X_LENGTHS, tmp_path)


def test_int32_lengths_and_padding_that_is_not_a_number_stays_out(tmp_path: Path) -> None:
    module = Direct().eval()
    x, lengths = with_lengths(2, 4)
    result = made(module, (x, lengths.int()), X_LENGTHS, tmp_path)
    assert str(result.model.inputs["lengths"].dtype) == "int32"
    assert "Cast" not in [node.op_type for node in result.proto.graph.node if "lengths" in node.input]
    x, lengths = short(3, 6)
    expected = eager(module, (x, lengths))
    for row, length in enumerate(lengths):
        x[row, length:] = float("nan")
    agree(result.run((x, lengths.int())), expected)


class Indexed(Bare):
    """Sorts the sequences with an index, as old code does."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        order = lengths.argsort(descending=True)
        return self.padded(x[order], lengths[order])[order.argsort()]


class Flattened(Bare):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.padded(x, lengths.reshape(-1).cpu())


@pytest.mark.parametrize("module", [Direct, Indexed, Flattened])
@pytest.mark.parametrize("axes", [X_LENGTHS, None])
def test_lengths_are_described_by_their_sequences_time(
    module: type[Bare], axes: dict[str, Any] | None, tmp_path: Path
) -> None:
    x, lengths = with_lengths(2, 4)
    column = lengths[:, None] if module is Flattened else lengths
    metadata = made(module(), (x, column), axes, tmp_path).model.metadata
    assert [(spec.name, spec.low, spec.high) for spec in metadata.inputs] == [("x", None, None), ("lengths", 1, "time")]


class Counting(Bare):
    """Lengths counted in the forward, from what is not zero."""

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x.abs().sum(dim=2) > 0).sum(dim=1)
        return self.padded(x, lengths)


def test_lengths_that_the_forward_counts(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor]:
        x, lengths = short(batch, time)
        return (x * (torch.arange(time) < lengths.unsqueeze(1)).unsqueeze(2),)

    right(Counting(), inputs, X, tmp_path)


class WithoutLSTM(Bare):
    """One pair of pack and pad has no LSTM in between."""

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        cut, _ = pad_packed_sequence(packed.to(x.dtype).cpu(), batch_first=True, padding_value=2.0)
        return cut, self.lstm(x)[0]


def test_pack_and_pad_with_nothing_in_between(tmp_path: Path) -> None:
    right(WithoutLSTM(), short, X_LENGTHS, tmp_path)


class Chained(Bare):
    """From one LSTM to the next while packed, by a function of the module rnn."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.GRU(4, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        packed, h = self.second(self.lstm(packed)[0])
        return rnn.pad_packed_sequence(packed, batch_first=True)[0], h


def test_from_one_recurrent_module_to_the_next(tmp_path: Path) -> None:
    right(Chained(), short, X_LENGTHS, tmp_path)


REFUSED: list[tuple[Callable[[Bare, Tensor, Tensor], Any], str]] = []


def refused(problem: str) -> Callable[[Any], Any]:
    def add(forward: Any) -> Any:
        REFUSED.append((forward, problem))
        return forward

    return add


@refused("of a packed sequence only data can be replaced")
def other_sizes(self: Bare, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed = packed._replace(batch_sizes=packed.batch_sizes * 1)  # here
    return pad_packed_sequence(packed, batch_first=True)[0]


@refused("gets a PackedSequence")
def made_of_other_sizes(self: Bare, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed = rnn.PackedSequence(packed.data, packed.batch_sizes * 1)
    return pad_packed_sequence(packed, batch_first=True)[0]  # here


@refused("pack_sequence makes tensors")
def pack_rows(self: Bare, x: Tensor, lengths: Tensor) -> Tensor:
    packed = rnn.pack_sequence([x[0], x[1]])  # here
    return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


@refused("unpack_sequence makes tensors")
def unpack_rows(self: Bare, x: Tensor, lengths: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return rnn.unpack_sequence(packed)[0]  # here


@refused("forward returns a packed sequence")
def returning(self: Bare, x: Tensor, lengths: Tensor) -> Any:
    return self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))[0]


@pytest.mark.parametrize(("forward", "problem"), REFUSED, ids=[forward.__name__ for forward, _ in REFUSED])
def test_what_has_no_form_is_refused_by_its_line(forward: Any, problem: str, tmp_path: Path) -> None:
    module = type("Module", (Bare,), {"forward": forward})()
    with pytest.raises(ExportError) as caught:
        made(module, with_lengths(2, 4), X_LENGTHS, tmp_path)
    message = str(caught.value)
    assert problem in message
    assert ("test_packed_sequences.py:" in message and "# here:" in message) or forward is returning
    assert not list(tmp_path.iterdir())


class Listed(Bare):
    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True)  # type: ignore[arg-type]
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


def test_a_list_of_lengths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"lengths is a list, which would be baked into the file; pass the tensor"):
        made(Listed(), (*signal(2, 4), [4, 2]), X, tmp_path)


def test_other_threads_go_on_with_torch_own_functions() -> None:
    x, lengths = with_lengths(3, 6)
    expected = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    codes = [function.__code__ for function in (rnn.pack_padded_sequence, rnn.pad_packed_sequence)]
    found: list[Any] = []

    def elsewhere() -> None:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        found.append(packed)
        found.append(pad_packed_sequence(packed, batch_first=True, total_length=8)[0])

    with replace_packing_functions():
        here = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert isinstance(here, PaddedSequence)
    assert not isinstance(found[0], PaddedSequence)
    assert torch.equal(found[0].data, expected.data)
    assert found[1].shape == (3, 8, 3)
    assert [function.__code__ for function in (rnn.pack_padded_sequence, rnn.pad_packed_sequence)] == codes


def test_the_functions_come_back_after_an_error() -> None:
    code = rnn.pack_padded_sequence.__code__
    with pytest.raises(KeyError), replace_packing_functions():
        raise KeyError
    assert rnn.pack_padded_sequence.__code__ is code


@pytest.mark.sweep(9)
@pytest.mark.parametrize("total", [None, 4, 6, 9])
@pytest.mark.parametrize("value", [0.0, -3.0])
@pytest.mark.parametrize("first", [True, False])
def test_pack_and_pad_give_torch_numbers(total: int | None, value: float, first: bool) -> None:
    x, lengths = short(3, 6)
    x = x if first else x.transpose(0, 1)
    packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
    expected, counted = pad_packed_sequence(packed, batch_first=True, padding_value=value, total_length=total)
    ours, ours_counted = pad(pack(x, lengths, first, False), True, value, total)
    assert torch.equal(ours, expected)
    assert torch.equal(ours_counted, counted)


@pytest.mark.parametrize("sort", [True, False])
def test_fields_are_those_of_torch(sort: bool) -> None:
    """Of few sequences: torch leaves open the order of many equal lengths."""
    x, lengths = short(4, 6)
    lengths = lengths.sort(descending=True)[0] if sort else lengths
    expected = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=sort)
    ours = pack(x, lengths, True, sort)
    for one, other in zip(ours, expected, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(pad(ours._replace(data=ours.data * 2), True, 0.0, None)[0], pad(ours, True, 0.0, None)[0] * 2)


def test_without_indices_the_sequences_stay_in_sorted_order() -> None:
    x, lengths = short(4, 6)
    theirs = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(rnn.PackedSequence(theirs.data, theirs.batch_sizes), batch_first=True)
    ours = pack(x, lengths, True, False)
    found = pad(rnn.PackedSequence(ours.data, ours.batch_sizes), True, 0.0, None)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_lengths_for_another_batch_are_refused() -> None:
    x, lengths = with_lengths(3, 6)
    with pytest.raises(ExportError, match="not as many lengths as sequences"):
        pack(x, lengths[:2], True, False)
    with pytest.raises(ExportError, match="gets a Tensor"):
        pad(x, True, 0.0, None)


def test_what_poses_as_a_packed_sequence_says_what_it_is() -> None:
    padded = pack(*with_lengths(3, 6), True, False)
    assert repr(padded) == "PaddedSequence((3, 6, 3))"
    assert padded.to(torch.float64).value.dtype == torch.float64
