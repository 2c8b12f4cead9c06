"""What a module's forward takes and returns: containers, values that are no tensors, outputs of every kind."""

from __future__ import annotations

import copy
import re
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import BATCH_TIME, agree, eager, made, right, signal, with_lengths

pytestmark = pytest.mark.sweep(3)


class Pair(NamedTuple):
    left: Tensor
    right: list[Tensor]


Named = namedtuple("Named", ["a", "b"])


@dataclass
class Record:
    first: Tensor
    second: dict[str, Tensor]


@pytest.fixture
def _registered() -> None:
    if Record not in pytree.SUPPORTED_NODES:
        torch.export.register_dataclass(Record)


class Containers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, pair: Pair, record: Record) -> dict[str, Any]:
        out, (h, c) = self.lstm(pair.left + pair.right[1])
        return {
            "scores": Named(out, record.first * 2),
            "record": Record(h, {"cell": c, "x": record.second["x"] + 1}),
            "list": [(out.mean(), 3), None],
        }


@pytest.mark.usefixtures("_registered")
def test_containers_in_and_out(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Any, ...]:
        (x,) = signal(batch, time)
        return Pair(x, [x[:, 0], x * 2]), Record(x[:, 0], {"x": x})

    shapes = {
        "pair": (BATCH_TIME, [{0: "batch"}, BATCH_TIME]),
        "record": Record({0: "batch"}, {"x": BATCH_TIME}),  # type: ignore[arg-type, dict-item]
    }
    result = right(Containers(), inputs, shapes, tmp_path)
    names = ["pair.left", "pair.right.0", "pair.right.1", "record.first", "record.second.x"]
    assert list(result.exported.inputs) == names
    assert list(result.exported.outputs) == [
        "scores.a",
        "scores.b",
        "record.first.out",
        "record.second.cell",
        "record.second.x.out",
        "list.0.0",
    ]


class Signature(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def run(self, x: Tensor, scale: float, flip: bool, mode: str | None, extra: Tensor | None) -> Tensor:
        x = x.flip(1) * scale if flip else x * scale
        out = self.lstm(x)[0]
        if mode == "last":
            out = out[:, -1]
        return out if extra is None else out + extra


class Positional(Signature):
    def forward(self, x: Tensor, scale: int, flip: bool, mode: str | None = None, extra: Tensor | None = None) -> Any:
        return self.run(x, scale, flip, mode, extra)


class Keywords(Signature):
    def forward(self, *, x: Tensor, scale: float = 1.0, extra: Tensor, **rest: Any) -> Any:
        return self.run(x, scale, rest["flip"], rest.get("mode"), extra * rest["more"])


class Many(Signature):
    def forward(self, first: Tensor, /, *xs: Tensor) -> Any:
        return self.run(first + sum(xs), 2, False, None, None)


def test_arguments_that_are_no_tensors_are_constants(tmp_path: Path) -> None:
    for flip, mode in ((True, "last"), (False, None)):

        def inputs(batch: int, time: int, flip: bool = flip, mode: str | None = mode) -> tuple[Any, ...]:
            return *signal(batch, time), 3, flip, mode, None

        result = right(Positional(), inputs, {"x": BATCH_TIME}, tmp_path)
        assert list(result.exported.inputs) == ["x"]


class Sized(dict[str, Tensor]):
    """Keeps a size of its tensors in an attribute."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__(**tensors)
        self.steps = tensors["x"].shape[1]


class Mean(Signature):
    def forward(self, batch: Sized, _total: Any = None) -> Tensor:
        return self.lstm(batch["x"])[0].sum(1) / batch.steps


@pytest.mark.parametrize(
    ("inputs", "noted"),
    [
        (
            (Sized(x=signal(2, 4)[0]),),
            ["batch.steps is 4 in the file at all sizes; if that is only because time is 4"],
        ),
        ((Sized(x=signal(2, 4)[0]), 4), ["batch.steps is 4", "_total is 4"]),
        ((Sized(x=signal(2, 4)[0]), torch.Size([9, 4])), ["batch.steps is 4", r"_total is torch.Size\(\[9, 4\]\)"]),
        ((Sized(x=signal(2, 4)[0]), (True, 2.0, 5)), ["batch.steps is 4"]),
    ],
)
def test_a_constant_that_is_a_size_of_the_example_is_noted(inputs: Any, noted: list[str], tmp_path: Path) -> None:
    result = made(Mean().eval(), inputs, {"batch": {"x": {1: "time"}}}, tmp_path)
    assert len(result.exported.notes) == len(noted)
    for note, text in zip(result.exported.notes, noted, strict=True):
        assert re.match(text, note)


def test_keywords_alone(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> Any:
        more = signal(batch, time)[0][:, :, :1]
        return {"more": more, "flip": True, "x": signal(batch, time)[0], "extra": torch.arange(4.0)}

    result = made(Keywords().eval(), inputs(2, 4), {"x": BATCH_TIME, "more": BATCH_TIME}, tmp_path)
    assert list(result.exported.inputs) == ["x", "extra", "more"]
    other = inputs(3, 6)
    actual = result.model.run({name: other[name].numpy() for name in result.exported.inputs})
    agree([actual["output"]], eager(Keywords().eval(), other))


def test_any_number_of_arguments(tmp_path: Path) -> None:
    def inputs(batch: int, time: int) -> tuple[Tensor, ...]:
        (x,) = signal(batch, time)
        return x, x * 2, x + 1

    shapes = {"first": BATCH_TIME, "xs": (BATCH_TIME, BATCH_TIME)}
    result = right(Many(), inputs, shapes, tmp_path)
    assert list(result.exported.inputs) == ["first", "xs.0", "xs.1"]


class Outputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x: Tensor, mask: Tensor) -> dict[str, Any]:
        out = self.lstm(x)[0]
        return {"x": x, "out": out, "again": out, "steps": x.size(1), "mask": mask, "table": self.table, "n": 3}


def test_outputs_that_are_inputs_constants_numbers_or_there_twice(tmp_path: Path) -> None:
    module = Outputs().eval()
    shapes = {"x": BATCH_TIME, "mask": BATCH_TIME}

    def inputs(batch: int, time: int) -> tuple[Tensor, Tensor]:
        x = signal(batch, time)[0]
        return x, x[..., 0] > 0

    result = right(module, inputs, shapes, tmp_path)
    assert list(result.exported.outputs) == ["x.out", "out", "again", "mask.out", "table"]
    asked = ["a", "b", "c", "d", "e"]
    result = made(module, inputs(2, 4), shapes, tmp_path, output_names=asked)
    assert list(result.exported.outputs) == asked
    with pytest.raises(ExportError, match=r"2 output names were given \(a, b\) for 5 tensors \(x, out, again, mask"):
        made(module, inputs(2, 4), shapes, tmp_path, output_names=asked[:2])
    with pytest.raises(ExportError, match="give each a name"):
        made(module, inputs(2, 4), shapes, tmp_path, output_names=["a", "a", "c", "d", "e"])
    with pytest.raises(ExportError, match=r"output_names has 'x', which is an input .* such as 'x_out'"):
        made(module, inputs(2, 4), shapes, tmp_path, output_names=["x", *asked[1:]])
    with pytest.raises(ExportError, match=r"output_names has '', which is empty"):
        made(module, inputs(2, 4), shapes, tmp_path, output_names=["", *asked[1:]])
    with pytest.raises(
        ExportError, match=r"two inputs or outputs of the file are named 'lstm.hn', one of them a state"
    ):
        made(module, inputs(2, 4), shapes, tmp_path, output_names=["lstm.hn", *asked[1:]], states="explicit")


class AlikeKeys(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> dict[str, Any]:
        out, (h, _) = self.lstm(x)
        return {"a": {"b": out}, "a.b": h[-1]}


def test_outputs_of_one_name_are_refused_unless_they_get_names(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"two tensors that would be named a\.b; rename one, or pass output_names"):
        made(AlikeKeys(), signal(2, 4), {"x": BATCH_TIME}, tmp_path)
    result = made(AlikeKeys(), signal(2, 4), {"x": BATCH_TIME}, tmp_path, output_names=["steps", "last"])
    assert [value.shape for value in result.run(signal(2, 4))] == [(2, 4, 4), (2, 4)]


class Matched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        out = self.lstm(x)[0]
        match x.argmax().item():
            case int():
                return out


def test_outputs_that_a_trace_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="forward gives 1 outputs and states, and its trace 0"):
        made(Matched().eval(), signal(2, 4), {"x": BATCH_TIME}, tmp_path)


def test_a_name_that_an_output_has_is_not_given_to_another(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> dict[str, Any]:
            out = self.lstm(x)[0]
            return {"x": out, "x.out": 2 * out}

    result = right(Named(), signal, {"x": BATCH_TIME}, tmp_path)
    assert list(result.exported.outputs) == ["x.out.out", "x.out"]


class WritesIntoInputs(nn.Module):
    """Scales its frames in place, and shortens the lengths, of which it returns a deep copy."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x[..., 1:] *= 3
        lengths //= 2
        lengths += 1
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0], x, copy.deepcopy(lengths)


def test_a_forward_that_writes_into_its_inputs(tmp_path: Path) -> None:
    """Each call of it gets the caller's numbers, which stay as they are."""
    module, given = WritesIntoInputs().eval(), with_lengths(2, 4)
    kept = [tensor.clone() for tensor in given]
    result = made(module, given, {"x": BATCH_TIME, "lengths": {0: "batch"}}, tmp_path)
    assert all(map(torch.equal, given, kept))
    for batch, time in ((1, 1), (3, 7)):
        arguments = with_lengths(batch, time)
        ran = result.run(arguments)
        agree(ran, eager(module, arguments))
    assert lstm_onnx.verify(module, result.path, provider="cpu", threads=1, mutants="none")


class Same(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = self.lstm(x)[0]
        return found if x is y else found + self.lstm(y)[0]


def test_one_tensor_for_two_arguments_is_refused_where_that_makes_a_difference(tmp_path: Path) -> None:
    (x,) = signal(2, 5)
    with pytest.raises(ExportError, match="x and y are one tensor in the example, and the module gives another output"):
        made(Same().eval(), (x, x), {"x": BATCH_TIME, "y": BATCH_TIME}, tmp_path)
    made(Same().eval(), (x, x.clone()), {"x": BATCH_TIME, "y": BATCH_TIME}, tmp_path)
