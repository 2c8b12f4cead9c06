"""Python's own functions of traced tensors, in any file; and Python's numbers of each row."""
# nn.Module's call is typed as Any
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx import ExportError
from tests.exporter.helpers import X_LENGTHS, X, agree, eager, made, right, signal, with_lengths

from . import length_masks

pytestmark = pytest.mark.sweep(12)


class Base(nn.Module):
    def __init__(self, forward: Callable[[Base, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.call = forward

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        return self.call(self, x, lengths)

    def packed(self, x: Tensor, lengths: Any, **options: Any) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, **options)[0]

    def masked(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.lstm(x)[0][:, : mask.shape[1]] * mask.unsqueeze(2)


def subsampled(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    y = self.packed(x, lengths, total_length=x.size(1))
    halves = [int(length + 1) // 2 for length in lengths]
    return self.packed(y[:, ::2, :3], halves)


def sorted_by_numpy(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    order = np.argsort(-lengths.cpu().numpy())
    y = self.packed(x[order], lengths[order], total_length=x.size(1))
    return y[np.argsort(order)]


def sorted_by_a_key(self: Base, x: Tensor, lengths: Tensor) -> Any:
    """Equal lengths stay in their order, also in reverse."""
    numbers = lengths.tolist()
    order = sorted(range(len(numbers)), key=lambda row: numbers[row] // 2, reverse=True)
    back = sorted(range(len(order)), key=order.__getitem__)
    by_tensor = sorted(range(len(numbers)), key=lambda row: -lengths[row])
    y = self.packed(x[order], [numbers[row] for row in order], total_length=x.size(1))
    return y[back], torch.tensor(order), torch.tensor(by_tensor), y[range(len(y)), [n - 1 for n in numbers]]


def sorted_in_pairs(self: Base, x: Tensor, lengths: Tensor) -> Any:
    """Each length beside the number of its row."""
    order, numbers = zip(*sorted(enumerate(lengths.tolist()), key=lambda pair: pair[1] // 2, reverse=True), strict=True)
    y = self.packed(x[list(order)], list(numbers), total_length=x.size(1))
    weights = torch.tensor([row * n for row, n in enumerate(lengths, 1)])
    return y[torch.tensor(order).argsort()], x[[row for row, _ in sorted(enumerate(lengths), key=_second)]], weights


def _second(pair: tuple[int, Any]) -> Any:
    return -pair[1]


def as_an_index(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    y = self.lstm(x)[0]
    return torch.stack([y[:, n - 1] for n in lengths.tolist()])


def rows_in_an_order(_: Base, x: Tensor, lengths: Tensor) -> Tensor:
    return torch.stack([x[row] for row in sorted(range(len(x)), key=lambda row: lengths[row])])


def of_each(self: Base, x: Tensor, lengths: Tensor) -> Any:
    """What Python computes with one number after another, in double precision."""
    numbers = lengths.tolist()
    return [
        self.lstm(x)[0],
        torch.tensor([1 + n * 2 - 3 for n in numbers]),
        torch.tensor([math.floor(n * 0.7) + math.ceil(n / 3) for n in numbers]),
        torch.tensor([round(n / 2) % 2 for n in numbers]),
        torch.tensor([max(n - 2, 1) for n in numbers]),
        torch.as_tensor([min(abs(-n), 3) for n in numbers], dtype=torch.int32),
        torch.tensor([n / 7 for n in numbers]),
        torch.tensor(sum(numbers)) + max(numbers) * min(numbers) + len(numbers),
    ]


def by_numpys_arithmetic(self: Base, x: Tensor, lengths: Tensor) -> Any:
    """What numpy computes with an array, in its dtypes; its own numbers beside traced ones."""
    array, factor = lengths.cpu().numpy(), np.arange(3)[2]
    halves = np.array(np.ceil(array / 2), dtype=np.int64)
    quarters = np.array(np.ceil(np.array(halves, dtype=np.float32) / 2), dtype=np.int64).tolist()
    return [
        self.packed(x, quarters),
        torch.tensor([int(n + 1) // factor for n in lengths]),
        torch.from_numpy(np.asarray(2 * array - 1 + np.maximum(3, array) - np.minimum(array, factor) + np.abs(-array))),
        torch.tensor((np.floor(array / 3) + np.rint(1.5 * array) - np.trunc(array * 0.3)).tolist()),
        torch.tensor((array // 2).tolist()),
    ]


CASES: dict[str, Callable[[Base, Tensor, Tensor], Any]] = {
    "len in another file": lambda m, x, n: m.masked(x, length_masks.up_to(n, x.shape[1])),
    "len in a method of another class": lambda m, x, n: m.masked(x, length_masks.Masks().up_to(n, x.shape[1])),
    "max of a tensor": lambda m, x, n: m.masked(x, length_masks.up_to_the_longest(n)),
    "len, max and int of a list": lambda m, x, n: m.masked(x, length_masks.of_a_list(n)),
    "int of a size": lambda m, x, _: m.lstm(x)[0].sum(1) / int(x.size(1)),
    "int of a size times a float": lambda m, x, _: m.lstm(x)[0][:, : int(x.size(1) * 0.7) + 1],
    "int of the longest": lambda m, x, n: m.lstm(x)[0][:, : int(n.max())],
    "tolist": lambda m, x, n: m.packed(x, n.tolist()),
    "list": lambda m, x, n: m.packed(x, list(n)),
    "item": lambda m, x, n: m.packed(x, [length.item() for length in n]),
    "map": lambda m, x, n: m.packed(x, list(map(int, n))),
    "numpy": lambda m, x, n: m.packed(x, n.cpu().numpy()),
    "data": lambda m, x, n: m.packed(x, n.data.int().cpu().numpy().tolist()),
    "a tensor of a list": lambda m, x, n: m.packed(x, torch.tensor(n.tolist())),
    "LongTensor of a list": lambda m, x, n: (
        m.packed(x, torch.LongTensor(n.tolist())) / torch.FloatTensor(n.tolist()).sum()
    ),
    "an array": lambda m, x, n: m.packed(x, torch.from_numpy(n.numpy().astype(np.int64) // 2 + 1)),
    "the longest as total length": lambda m, x, n: m.packed(x, n, total_length=max(n.tolist())),
    "a tensor as total length": lambda m, x, n: m.packed(x, n, total_length=n.max()),
    "subsampled": subsampled,
    "sorted by numpy": sorted_by_numpy,
    "lengths sorted by numpy": lambda m, x, n: m.packed(x, np.sort(n.numpy())[::-1].copy()),
    "sorted by a key": sorted_by_a_key,
    "sorted in pairs": sorted_in_pairs,
    "an index": as_an_index,
    "arithmetic": of_each,
    "arithmetic of numpy": by_numpys_arithmetic,
}


@pytest.mark.sweep(12)
@pytest.mark.parametrize("case", CASES)
def test_python_functions_of_traced_tensors(case: str, tmp_path: Path) -> None:
    before = {name: getattr(builtins, name) for name in ("len", "max", "min", "sum", "int")}
    arrays = np.array, np.asarray
    right(Base(CASES[case]), with_lengths, X_LENGTHS, tmp_path)
    assert {name: getattr(builtins, name) for name in before} == before
    assert (np.array, np.asarray) == arrays
    assert not {"len", "int"} & set(vars(length_masks)) | {"len", "int"} & set(globals())


def test_lengths_that_are_floats(tmp_path: Path) -> None:
    """Relative to the longest, as of SpeechBrain; PyTorch rounds towards zero."""

    def relative(batch: int, time: int) -> tuple[Tensor, Tensor]:
        x, lengths = with_lengths(batch, time)
        return x, (lengths + 0.3).clamp(max=time) / time

    module = Base(lambda m, x, part: [m.packed(x, part * x.shape[1]), m.packed(x, (part * x.shape[1]).cpu())])
    result = right(module, relative, X_LENGTHS, tmp_path, sizes=((1, 3), (3, 7), (5, 2)))  # a third of 1 step is none
    spec = result.model.metadata.inputs[1]
    assert (spec.low, spec.high) == (pytest.approx(0.575), 1.0)
    assert lstm_onnx.verify(module, result.path, mutants="none")


def rows_in_a_loop(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    return self.masked(x, length_masks.written_row_by_row(lengths, x.size(1)))


def compared(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    return self.packed(x, [length if length > 1 else 2 for length in lengths])


def by_numpy(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    return self.lstm(x)[0] * float(np.std(lengths.numpy()))


def test_slices_that_end_at_each_number(tmp_path: Path) -> None:
    right(Base(rows_in_a_loop), with_lengths, X_LENGTHS, tmp_path)


def any_compared(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
    return self.lstm(x)[0] * (2 if any(length > 1 for length in lengths) else 1)


def test_any_of_comparisons_has_advice(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"for any\(\) or all\(\) of comparisons, write \(lengths < 3\)\.any\(\)$"):
        made(Base(any_compared), with_lengths(2, 4), X_LENGTHS, tmp_path)


@pytest.mark.parametrize("forward", [compared, by_numpy, rows_in_an_order])
def test_more_than_arithmetic_with_each_number_is_refused(forward: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"at test_python_builtins.py:\d+: .*(numbers in a|numpy)"):
        made(Base(forward), with_lengths(2, 4), X_LENGTHS, tmp_path)
    assert builtins.max.__module__ == "builtins"


@pytest.mark.parametrize("order", ["sorted", "reversed", "first"])
def test_code_that_goes_by_the_order_of_numbers_is_refused(order: str, tmp_path: Path) -> None:
    """Also where all lengths of the example are equal."""

    def reordered(self: Base, x: Tensor, lengths: Tensor) -> Tensor:
        numbers = lengths.tolist()
        if order == "sorted":
            numbers.sort()
        elif order == "reversed":
            numbers.reverse()
        else:
            numbers = list(map(int, lengths))
            numbers = [min(numbers[0], number) for number in numbers]
        return self.packed(x, numbers, total_length=x.size(1))

    x, lengths = with_lengths(2, 4)
    with pytest.raises(ExportError, match=r"the numbers of a tensor one by one|which it takes one by one"):
        made(Base(reordered), (x, lengths * 0 + 4), X_LENGTHS, tmp_path)


def rows(x: Tensor) -> int:
    return len(x)


def test_len_of_a_tensor_is_its_first_size_in_a_trace_alone(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0].reshape(len(x), -1, len([1, 2])) * rows(x)

    module, own = Counting().eval(), len
    result = made(module, signal(2, 4), X, tmp_path)
    assert "len" not in globals()
    assert len is own
    for size in ((2, 4), (1, 1), (5, 3)):
        agree(result.run(signal(*size)), eager(module, signal(*size)))


def test_a_loop_over_rows_is_still_a_loop(tmp_path: Path) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.lstm(x)[0][row].sum() for row in range(len(x))])

    module = Rows().eval()
    result = made(module, signal(2, 4), X, tmp_path)
    for size in ((2, 4), (1, 1), (5, 3)):
        agree(result.run(signal(*size)), eager(module, signal(*size)))


class OfSizes(nn.Module):
    """Numbers of Python and arrays of numpy, of dynamic sizes."""

    def __init__(self, compute: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self.lstm(x)[0], x.size(1))


def marked(y: Tensor, steps: int) -> Tensor:
    mask = np.zeros((steps, 1), dtype=np.float32)
    mask[0] = 2
    return y * torch.from_numpy(mask)


@pytest.mark.parametrize(
    "compute",
    [
        lambda y, steps: y.sum(1) / float(steps),
        lambda y, steps: y * (float(steps) ** -0.5 if isinstance(float(steps), float) else 0),
        lambda y, steps: y / math.sqrt(steps + 1),
        lambda y, steps: y * math.log(steps),
        lambda y, steps: y[:, : int(math.sqrt(steps))],
        lambda y, steps: y.topk(int(math.log(steps + 2)), dim=1)[0],
        lambda y, steps: y * math.ceil(math.log(steps, 3)) + math.floor(math.log(steps) / math.log(3)),
        lambda y, steps: y + torch.from_numpy(np.zeros((steps, 1))),
        lambda y, steps: y * torch.tensor(np.ones(steps, np.float32) / steps).unsqueeze(1),
        marked,
    ],
)
def test_numbers_and_arrays_of_an_open_size(compute: Callable[[Tensor, int], Tensor], tmp_path: Path) -> None:
    module, path = OfSizes(compute), tmp_path / "m.onnx"
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 6, 3))
    model = lstm_onnx.load(path, provider="cpu", threads=1)
    assert model.inputs["x"].shape == ("batch", "time", 3)
    for steps in (1, 9, 30):
        x = torch.randn(3, steps, 3)
        np.testing.assert_allclose(model.run({"x": x.numpy()})["output"], module(x).detach(), rtol=1e-4, atol=1e-6)


def test_an_array_of_a_size_is_a_result(tmp_path: Path) -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.lstm(x)[0], np.array(x.shape[1])

    model = made(Sized(), signal(2, 4), X, tmp_path).model
    outputs = model.run({"x": np.zeros((1, 9, 3), np.float32)})
    assert list(outputs.values())[1] == 9
