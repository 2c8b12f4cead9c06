"""The user's own inputs in a verification: what fits, what is said, and that they can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import lstm_onnx
from lstm_onnx import FileError, InputError
from lstm_onnx.data import read
from lstm_onnx.data.run import run_records
from lstm_onnx.parity import user_data as data
from lstm_onnx.parity.verification import verification_of

pytestmark = pytest.mark.sweep(18)

SIZE = 3


def _lstm(scale: float = 1.0, **arguments: Any) -> nn.LSTM:
    torch.manual_seed(0)
    module = nn.LSTM(SIZE, 6, **arguments)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    return module


def _exported(module: nn.Module, folder: Path, **options: Any) -> lstm_onnx.Model:
    lstm_onnx.export(module, folder / "m.onnx", **options)
    return lstm_onnx.load(folder / "m.onnx", provider="cpu", threads=1)


def _draw(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


def _verify(module: nn.Module, model: lstm_onnx.Model, feeds: list[dict[str, Any]]) -> lstm_onnx.ParityReport:
    return lstm_onnx.verify(module, model, data=feeds, mutants="none")


def _own(report: lstm_onnx.ParityReport) -> list[Any]:
    return [case for case in report.cases if case.kind == "data"]


# --- what a verification does with them -------------------------------------------------------------


def test_each_is_a_case_of_its_own(tmp_path: Path) -> None:
    module = _lstm()
    model = _exported(module, tmp_path, lengths=True)
    feeds: list[dict[str, Any]] = [
        {"input": _draw(50, 2, SIZE)},
        {"input": _draw(9, 1, SIZE), "h0": _draw(1, 1, 6), "c0": _draw(1, 1, 6)},
        {"input": _draw(9, 2, SIZE), "lengths": [4, 9]},
    ]
    report = _verify(module, model, feeds)
    assert report
    assert [case.label for case in _own(report)] == ["data 0", "data 1", "data 2"]
    assert all({tensor.output for tensor in case.tensors} == {"output", "hn", "cn"} for case in _own(report))


def test_a_state_that_is_given_alone_is_not_left_out(tmp_path: Path) -> None:
    module = _lstm()
    model = _exported(module, tmp_path)
    verification = verification_of(model, module, data=[{"input": _draw(4, 2, SIZE), "c0": _draw(1, 2, 6)}])
    (case,) = [case for case in verification.cases if case.kind == "data"]
    h0, c0 = case.feeds["h0"], case.feeds["c0"]
    np.testing.assert_array_equal(c0, _draw(1, 2, 6))
    np.testing.assert_array_equal(h0, np.zeros((1, 2, 6)))
    assert list(verification.results())[-1].passed


def _blind_to_one_number(path: Path, out: Path) -> None:
    """A file that takes 0.625 for 0, which no drawn input holds."""
    model = onnx.load(path)
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            if name == "input":
                node.input[at] = "replaced"
    for name, value in (("number", 0.625), ("zero", 0.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    nodes = [
        onnx.helper.make_node("Equal", ["input", "number"], ["found"]),
        onnx.helper.make_node("Where", ["found", "zero", "input"], ["replaced"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    onnx.save(model, out)


def test_a_fault_that_only_the_users_inputs_show_is_found(tmp_path: Path) -> None:
    module = _lstm()
    _exported(module, tmp_path)
    _blind_to_one_number(tmp_path / "m.onnx", tmp_path / "wrong.onnx")
    model = lstm_onnx.load(tmp_path / "wrong.onnx", provider="cpu", threads=1)
    own = _draw(5, 1, SIZE)
    assert _verify(module, model, [{"input": own}])
    with_number = own.copy()
    with_number[2, 0, 1] = 0.625
    report = _verify(module, model, [{"input": own}, {"input": with_number}])
    assert not report
    assert [case.label for case in report.cases if not case.passed] == ["data 1"]


def test_chaotic_data_is_compared_in_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(SIZE, 64)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter *= 60 if name.startswith("weight_hh") else 1
    model = _exported(module, tmp_path)
    report = _verify(module, model, [{"input": _draw(200, 2, SIZE)}])
    labels = {case.label: case for case in report.cases}
    assert labels["data 0"].inconclusive
    assert labels["data 0, 2 at a time"].kind == "steps"
    assert report, str(report)
    assert any("chaotic" in note for note in report.notes)


def test_nan_in_the_data_is_no_parity(tmp_path: Path) -> None:
    """ONNX Runtime's LSTM hides it on the CPU: numbers come out where PyTorch has none."""
    module = _lstm()
    x = _draw(5, 1, SIZE)
    x[2, 0, 1] = np.nan
    with pytest.warns(RuntimeWarning, match="input has a NaN"):
        report = _verify(module, _exported(module, tmp_path), [{"input": x}])
    assert not report
    (case,) = _own(report)
    assert {tensor.problem for tensor in case.tensors} == {"is another number where PyTorch's is not finite"}


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"input": _draw(5, 2, SIZE + 1)}, r"data 0: input has shape \(5, 2, 4\); axis 2 must be 3"),
        ({"input": _draw(5, 2, SIZE, dtype="float64")}, "data 0: input has dtype float64"),
        ({"input": _draw(5, 2, SIZE), "h0": _draw(1, 3, 6)}, "data 0: .* batch is"),
        ({"input": _draw(5, 0, SIZE)}, "data 0: input has shape .*: the axis batch is empty; it must be at least 1"),
        ({"input": _draw(5, 2, SIZE), "lengths": np.array([5, 6])}, "data 0: .* exported without lengths"),
        ({"x": _draw(5, 2, SIZE)}, "data 0: x is not an input of the model"),
        ({}, "data 0: missing input: input"),
        ({"input": [[[1.0, 2.0, 3.0]], [[1.0]]]}, "data 0: input is not an array of numbers"),
        ({"input": torch.ones(5, 2, SIZE, requires_grad=True)}, "data 0: input cannot be read as an array"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(feeds: dict[str, Any], message: str, tmp_path: Path) -> None:
    module = _lstm()
    model = _exported(module, tmp_path)
    with pytest.raises(InputError, match=message):
        verification_of(model, module, data=[feeds])


def test_a_file_that_calls_its_input_otherwise_is_said(tmp_path: Path) -> None:
    module = _lstm()
    _exported(module, tmp_path)
    model = onnx.load(tmp_path / "m.onnx")
    del model.metadata_props[:]
    model.graph.input[0].name = "x"
    for node in model.graph.node:
        for at, name in enumerate(node.input):
            node.input[at] = "x" if name == "input" else name
    onnx.save(model, tmp_path / "x.onnx")
    loaded = lstm_onnx.load(tmp_path / "x.onnx", provider="cpu", threads=1)
    feeds = {"x": _draw(5, 2, SIZE), "h0": _draw(1, 2, 6), "c0": _draw(1, 2, 6)}
    with pytest.raises(InputError, match=r"an nn.LSTM takes input, and .*x.onnx takes x, h0, c0"):
        verification_of(loaded, module, data=[feeds])


class Sorted(nn.Module):
    """It wants its lengths from the longest down, and its tokens below 9."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=tokens.size(1))[0]


def _sorted(folder: Path) -> tuple[nn.Module, lstm_onnx.Model]:
    torch.manual_seed(0)
    module = Sorted()
    example = (torch.arange(8).reshape(2, 4), torch.tensor([4, 2]))
    shapes = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    return module, _exported(module, folder, example_inputs=example, dynamic_shapes=shapes)


def _tokens(*lengths: int, token: int = 8) -> dict[str, Any]:
    return {"tokens": np.full((len(lengths), max(lengths)), token), "lengths": np.array(lengths)}


def test_a_modules_own_inputs(tmp_path: Path) -> None:
    module, model = _sorted(tmp_path)
    report = _verify(module, model, [_tokens(30, 7, 1), _tokens(2)])
    assert report
    assert [case.label for case in _own(report)] == ["data 0", "data 1"]


@pytest.mark.parametrize(("name", "text"), [("x.csv", "1\n2\n8\n"), ("x.jsonl", '{"tokens": [1, 2, 8]}\n')])
def test_one_sequence_without_lengths_is_complete(name: str, text: str, tmp_path: Path) -> None:
    module, model = _sorted(tmp_path)
    (tmp_path / name).write_text(text)
    (feeds,), _ = data.read(tmp_path / name).feeds(model)
    assert feeds["lengths"].tolist() == [3]
    assert _verify(module, model, [feeds])
    with read(tmp_path / name, name="tokens") as records:
        (outputs,) = run_records(model, records)
    expected = module(torch.tensor([[1, 2, 8]]), torch.tensor([3])).detach()
    torch.testing.assert_close(torch.from_numpy(outputs["output"]), expected[0])


@pytest.mark.parametrize("feeds", [_tokens(3, 7), _tokens(4, token=9)], ids=["unsorted", "no such token"])
def test_data_on_which_the_module_itself_fails_is_an_error(feeds: dict[str, Any], tmp_path: Path) -> None:
    module, model = _sorted(tmp_path)
    with pytest.raises(InputError, match="data 1: the module itself fails on it: "):
        _verify(module, model, [_tokens(4, 2), feeds])


def test_a_modules_states_are_given_and_left_out(tmp_path: Path) -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(SIZE, 5)
            self.hidden = (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))

        def forward(self, x: Tensor) -> Tensor:
            y, self.hidden = self.lstm(x, self.hidden)
            return y

    torch.manual_seed(0)
    module = Kept()
    shapes = {"x": {0: "time", 1: "batch"}}
    model = _exported(module, tmp_path, example_inputs=torch.randn(3, 2, SIZE), dynamic_shapes=shapes)
    h, c = model.states
    feeds = [{"x": _draw(20, 1, SIZE)}, {"x": _draw(6, 2, SIZE), h: _draw(1, 2, 5), c: _draw(1, 2, 5)}]
    report = _verify(module, model, feeds)
    assert report, str(report)
    assert len(_own(report)) == 2


def test_chaotic_data_does_not_blunt_the_other_cases(tmp_path: Path) -> None:
    """The yardstick of a module's output is PyTorch's error in any case, but for the user's own."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(SIZE, 5)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(1e5 * x.sum(-1, keepdim=True)) * (x.abs() > 10).any() + self.head(self.lstm(x)[0])

    torch.manual_seed(0)
    module = Large()
    shapes = {"x": {0: "time", 1: "batch"}}
    model = _exported(module, tmp_path, example_inputs=torch.randn(3, 2, SIZE), dynamic_shapes=shapes)
    verification = verification_of(model, module, data=[{"x": _draw(6, 2, SIZE) * 1000}])
    results = list(verification.results())
    (own,) = [case for case in verification.expected if case.kind == "data"]
    assert own.inconclusive
    assert all(case.passed for case in results if case.kind != "data")
    assert all(max(case.least.values()) < 1e-5 for case in verification.expected)


# --- reading them -----------------------------------------------------------------------------------


def test_the_first_records_are_read_and_the_rest_is_said(tmp_path: Path) -> None:
    model = _exported(_lstm(), tmp_path)
    lines = [json.dumps({"input": _draw(2 + at % 3, SIZE).tolist()}) for at in range(data.MOST + 1)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines[:-1]))
    feeds, notes = data.read(tmp_path / "x.jsonl").feeds(model)
    assert len(feeds) == data.MOST == 64
    assert [array["input"].shape for array in feeds[:4]] == [(2, 1, 3), (3, 1, 3), (4, 1, 3), (2, 1, 3)]
    assert notes == []
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = data.read(tmp_path / "x.jsonl")
    feeds, notes = found.feeds(model)
    assert len(feeds) == 64
    assert notes == [f"of {tmp_path / 'x.jsonl'} only the first 64 records were compared"]


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence_gets_the_batch_axis_of_its_layout(batch_first: bool, tmp_path: Path) -> None:
    model = _exported(_lstm(batch_first=batch_first), tmp_path)
    np.savez(tmp_path / "x.npz", input=_draw(7, SIZE), h0=_draw(1, 6), c0=_draw(1, 6))
    (feeds,), _ = data.read(tmp_path / "x.npz").feeds(model)
    assert feeds["input"].shape == ((1, 7, SIZE) if batch_first else (7, 1, SIZE))
    assert feeds["h0"].shape == feeds["c0"].shape == (1, 1, 6)


def test_a_table_is_cast_and_its_columns_are_chosen(tmp_path: Path) -> None:
    model = _exported(_lstm(), tmp_path)
    (tmp_path / "x.csv").write_text("t,a,b,c\n0,1,2,3\n1,4,5,6\n")
    (feeds,), notes = data.read(tmp_path / "x.csv", columns=["c", "a", "b"]).feeds(model)
    np.testing.assert_array_equal(feeds["input"], np.array([[[3, 1, 2]], [[6, 4, 5]]], np.float32))
    assert feeds["input"].dtype == np.float32
    assert notes == []
    with pytest.raises(InputError, match=r"x.csv: input has shape .*; choose the features .* with --columns"):
        data.read(tmp_path / "x.csv").feeds(model)


def test_what_is_odd_in_the_data_is_said_once(tmp_path: Path) -> None:
    model = _exported(_lstm(), tmp_path)
    line = json.dumps({"input": [[1, 2, None]]})
    (tmp_path / "x.jsonl").write_text(f"{line}\n{line}\n")
    _, notes = data.read(tmp_path / "x.jsonl").feeds(model)
    assert len(notes) == 1
    assert notes[0].startswith("input contains NaN or infinity; where PyTorch's LSTM gives NaN, ONNX Runtime's may")
    np.save(tmp_path / "x.npy", _draw(4, SIZE, dtype="float64"))
    _, notes = data.read(tmp_path / "x.npy").feeds(model)
    assert notes == ["input is cast from float64 to float32"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"input": [[1, 2, 3]]}\n{"input": [[1, 2]]}\n', r"line 2: input has shape \(1, 1, 2\)"),
        ('{"input": [[1, 2, 3]]}\n{"x": [[1, 2]]}\n', "line 2: x is not an input"),
        ('{"input": [[1, 2, 1e300]]}\n', r"x\.jsonl: input has values that are too large for the model's float32"),
    ],
)
def test_the_record_that_does_not_fit_is_named(lines: str, message: str, tmp_path: Path) -> None:
    model = _exported(_lstm(), tmp_path)
    (tmp_path / "x.jsonl").write_text(lines)
    with pytest.raises(InputError, match=message):
        data.read(tmp_path / "x.jsonl").feeds(model)


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.csv", "x.safetensors", "x.jsonl", "x.parquet"])
def test_every_format_that_run_reads(name: str, tmp_path: Path) -> None:
    model = _exported(_lstm(), tmp_path)
    rows: Callable[[], list[dict[str, np.ndarray]]] = lambda: [{"input": _draw(5, SIZE)}]  # noqa: E731
    lstm_onnx.data.write(tmp_path / name, rows(), many=name.endswith(("jsonl", "parquet")))
    (feeds,), _ = data.read(tmp_path / name).feeds(model)
    np.testing.assert_array_equal(feeds["input"][:, 0], _draw(5, SIZE))


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.csv: No such file"):
        data.read(tmp_path / "none.csv")
