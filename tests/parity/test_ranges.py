"""Files that are wrong at some sizes, values, rows or dtypes alone are rejected, by verify and by golden files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.input_spec import InputSpec
from lstm_onnx.parity.expected import Arrays
from lstm_onnx.parity.golden import verify_golden
from lstm_onnx.parity.golden_file import read
from lstm_onnx.parity.modules.inputs import Rows, rows_of_inputs
from lstm_onnx.parity.modules.sizes import differing_rows, tokens_to_try
from lstm_onnx.parity.modules.verification import ModuleVerification
from lstm_onnx.parity.sizes import Axes, sizes_to_try, spans

from .files import edit_file, lstm, verified

pytestmark = pytest.mark.sweep(9)

Change = Callable[[onnx.ModelProto], object]


def _wrong_where(source: str, *steps: tuple[str, dict[str, object]], test: str, limit: float, output: str) -> Change:
    """An output that is off by a half where ``test(steps(source), limit)``."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = ["right" if name == output else name for name in names]
        value = source
        for at, (op, attributes) in enumerate(steps):
            graph.node.append(helper.make_node(op, [value], [f"step{at}"], **attributes))
            value = f"step{at}"
        integers = any(op == "Shape" for op, _ in steps)
        kind = np.int64 if integers else np.float32
        graph.initializer.append(numpy_helper.from_array(np.array(limit, kind), "limit"))
        graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
        graph.node.append(helper.make_node(test, [value, "limit"], ["wrong"]))
        graph.node.append(helper.make_node("Add", ["right", "half"], ["off"]))
        graph.node.append(helper.make_node("Where", ["wrong", "off", "right"], [output]))

    return change


def _size(axis: int, test: str, limit: int, output: str = "output") -> Change:
    shape = ("Shape", {"start": axis, "end": axis + 1})
    return _wrong_where("input", shape, ("ReduceMax", {"keepdims": 0}), test=test, limit=limit, output=output)


def _largest(name: str, limit: float, output: str = "output") -> Change:
    steps = ("Abs", {}), ("ReduceMax", {"keepdims": 0})
    return _wrong_where(name, *steps, test="Greater", limit=limit, output=output)


def _sign(name: str, reduced: str, test: str, output: str = "output") -> Change:
    return _wrong_where(name, (reduced, {"keepdims": 0}), test=test, limit=0.0, output=output)


def _clip(value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == "LSTM":
                node.attribute.append(helper.make_attribute("clip", value))

    return change


def _as_double(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["right" if name == "cn" else name for name in node.output]
    model.graph.node.append(helper.make_node("Cast", ["right"], ["cn"], to=TensorProto.DOUBLE))
    next(item for item in model.graph.output if item.name == "cn").type.tensor_type.elem_type = TensorProto.DOUBLE


def _another_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", ["output"], ["more"]))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["time", "batch", 8]))


def _optional_input(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.output[:] = ["right" if name == "hn" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "gain"))
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, []))
    model.graph.node.append(helper.make_node("Mul", ["right", "gain"], ["hn"]))


WRONG: dict[str, Change] = {
    "at batch 4": _size(1, "Equal", 4),
    "at batch 12": _size(1, "Equal", 12, "hn"),
    "at batch 64": _size(1, "Equal", 64),
    "above batch 5": _size(1, "Greater", 5),
    "above batch 100": _size(1, "Greater", 100, "cn"),
    "at 13 steps": _size(0, "Equal", 13),
    "at 71 steps": _size(0, "Equal", 71, "cn"),
    "at 100 steps": _size(0, "Equal", 100),
    "above 60 steps": _size(0, "Greater", 60),
    "above 250 steps": _size(0, "Greater", 250, "hn"),
    "|x| > 5": _largest("input", 5),
    "|x| > 400": _largest("input", 400),
    "|h0| > 20": _largest("h0", 20),
    "|c0| > 4": _largest("c0", 4, "cn"),
    "|c0| > 250": _largest("c0", 250),
    "x = 0": _wrong_where(
        "input", ("Abs", {}), ("ReduceMax", {"keepdims": 0}), test="LessOrEqual", limit=0.0, output="hn"
    ),
    "x > 0": _sign("input", "ReduceMin", "Greater"),
    "c0 < 0": _sign("c0", "ReduceMax", "Less"),
    "h0 > 0": _sign("h0", "ReduceMin", "Greater"),
    "clip 3": _clip(3.0),
    "clip 9": _clip(9.0),
    "a float64 output": _as_double,
    "another output": _another_output,
    "an optional input": _optional_input,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.LSTM, Path, Path]:
    """A module, its file and the golden file of it."""
    folder = tmp_path_factory.mktemp("ranges")
    module = lstm()
    lstm_onnx.export(module, folder / "m.onnx")
    report = verified(module, folder / "m.onnx", golden=folder / "m.npz")
    assert report, str(report)
    return module, folder / "m.onnx", folder / "m.npz"


@pytest.mark.sweep(27)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_only_somewhere_fails(name: str, made: tuple[nn.LSTM, Path, Path], tmp_path: Path) -> None:
    module, right, golden = made
    wrong = tmp_path / "m.onnx"
    wrong.write_bytes(right.read_bytes())
    edit_file(wrong, WRONG[name])
    assert not verified(module, wrong)
    assert not verify_golden(wrong, golden, provider="cpu", threads=1)


def test_the_report_names_the_sizes_and_the_dtype(made: tuple[nn.LSTM, Path, Path], tmp_path: Path) -> None:
    module, right, _ = made
    wrong = tmp_path / "m.onnx"
    wrong.write_bytes(right.read_bytes())
    edit_file(wrong, _size(1, "Equal", 7))
    report = verified(module, wrong)
    (failed,) = [case for case in report.cases if not case.passed]
    assert failed.label.endswith(": batch 7")
    wrong.write_bytes(right.read_bytes())
    edit_file(wrong, _as_double)
    assert "has dtype float64, PyTorch's is float32" in str(verified(module, wrong))


def test_the_report_says_what_was_tried(made: tuple[nn.LSTM, Path, Path]) -> None:
    module, right, golden = made
    report = verified(module, right)
    tried = {one.name: one for one in report.ranges}
    assert set(tried) == {"batch", "time", "input", "h0", "c0"}
    assert set(range(1, 33)) | {64, 128} <= set(tried["batch"].values)
    assert set(range(1, 73)) | {100, 128, 256, 300} <= set(tried["time"].values)
    assert tried["input"].least < -1000
    assert tried["c0"].largest > 1000
    assert verify_golden(right, golden, provider="cpu").ranges == report.ranges
    ranges = report.to_dict()["ranges"]
    assert {one["name"] for one in ranges} == set(tried)


def test_a_golden_file_stays_small(made: tuple[nn.LSTM, Path, Path]) -> None:
    _, _, golden = made
    assert golden.stat().st_size < 2**20
    sweeps = [case for case in read(golden).cases if case.kind == "sweep" and "every" in case.label]
    assert min(len(case.calls) for case in sweeps) > 40


# --- sizes ------------------------------------------------------------------------------------------


def test_boundaries_are_tried_on_both_sides_and_limits_are_kept() -> None:
    sizes = sizes_to_try((4, 300), (200,), float, 500.0)
    assert {4, 5, 199, 200, 201, 299, 300} <= set(sizes)
    assert min(sizes) == 4
    assert max(sizes) == 300
    assert sizes_to_try((7, 7), (), float, 0.0) == [7]
    assert Axes({"time": (4, 9)}).within("time", 3) == 4
    assert Axes({"time": (4, 9)}).within("time", 30) == 9
    assert spans([1, 2, 3, 5, 8, 9]) == "1 to 3, 5, 8, 9"


def test_a_budget_leaves_the_small_sizes() -> None:
    assert sizes_to_try((1, None), (), float, 92.0) == list(range(1, 14))


# --- tokens -----------------------------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self, words: int = 100) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(self.lstm(self.embedding(tokens))[0])
        return scores, scores.argmax(-1)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tagger, Path]:
    torch.manual_seed(0)
    module, path = Tagger().eval(), tmp_path_factory.mktemp("tagger") / "m.onnx"
    axes = {"tokens": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=(torch.zeros(2, 7, dtype=torch.long),), dynamic_shapes=axes)
    return module, path


def _one_row_off(row: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if len(tensor.dims) == 2 and tensor.dims[0] == 100:
                array = numpy_helper.to_array(tensor).copy()
                array[row] += 1
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    return change


def _as_int8(model: onnx.ModelProto) -> None:
    output = next(item for item in model.graph.output if item.type.tensor_type.elem_type == TensorProto.INT64)
    for node in model.graph.node:
        node.output[:] = ["right" if name == output.name else name for name in node.output]
    model.graph.node.append(helper.make_node("Cast", ["right"], [output.name], to=TensorProto.INT8))
    output.type.tensor_type.elem_type = TensorProto.INT8


MODULE_WRONG: dict[str, Change] = {
    "row 1": _one_row_off(1),
    "row 57": _one_row_off(57),
    "row 99": _one_row_off(99),
    "int8": _as_int8,
}


@pytest.mark.parametrize("name", MODULE_WRONG)
def test_a_module_that_is_wrong_only_somewhere_fails(name: str, tagger: tuple[Tagger, Path], tmp_path: Path) -> None:
    module, right = tagger
    wrong = tmp_path / "m.onnx"
    wrong.write_bytes(right.read_bytes())
    edit_file(wrong, MODULE_WRONG[name])
    assert not lstm_onnx.verify(module, wrong, provider="cpu", threads=1, mutants="none")


def test_every_row_of_the_embedding_is_tried_whatever_the_example(tagger: tuple[Tagger, Path]) -> None:
    module, path = tagger
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1)
    assert report, str(report)
    (tokens,) = [one for one in report.ranges if one.name == "tokens"]
    assert tokens.values == tuple(range(100))
    names = {mutant.name: mutant.outcome for mutant in report.mutants}
    assert names["one row of a table wrong"] == "rejected"
    assert names["wrong past some time"] == "rejected"
    assert names["wrong at one batch size"] == "rejected"
    assert names["another dtype of an output"] == "rejected"


def test_a_declared_range_is_kept(tagger: tuple[Tagger, Path]) -> None:
    module, path = tagger
    declared = (InputSpec("tokens", ("batch", "time"), "int64", 0, 9),)
    done = ModuleVerification(lstm_onnx.load(path, provider="cpu", threads=1), module, inputs=declared)
    assert done.subject.rows == {}
    assert max(int(case.feeds["tokens"].max()) for case in done.cases) == 9


class Lookups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(50, 4)
        self.table = nn.Parameter(torch.ones(20, 3))

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        return self.first(a), self.first((b + 2).T), self.table[c], nn.functional.one_hot(d.clamp(0, 3), 7)


def test_the_range_of_integers_comes_from_what_they_are_looked_up_in() -> None:
    module = Lookups()
    specs = [InputSpec(name, ("batch", "time"), "int64", 0, 1) for name in "abcd"]
    feeds = {name: np.random.default_rng(0).integers(0, 2, (2, 3)) for name in "abcd"}
    found = rows_of_inputs(lambda each: module(*map(torch.from_numpy, each.values())), specs, feeds)
    shown = {name: (rows.low, rows.high, rows.offset) for name, rows in found.items()}
    assert shown == {"a": (0, 49, 0), "b": (0, 47, 2), "c": (0, 19, 0), "d": (0, 6, 0)}


def test_tables_of_any_rank_but_no_inputs_or_results() -> None:
    """Numbers of speakers in another order, a matrix for each, and integers that choose rows of the batch."""
    order, matrices = torch.arange(30), torch.ones(12, 4, 4)
    names = ("a", "b", "c", "d")
    specs = [InputSpec(name, ("batch",), "int64", 0, 1) for name in names]
    feeds = {name: np.array([0, 1, 1]) for name in names} | {"x": np.ones(3), "y": np.ones((3, 2, 2))}

    def run(given: Arrays) -> object:
        a, b, c, d, x, y = (torch.from_numpy(array) for array in given.values())
        return order[a], matrices[b], x[c], (2 * y)[d]

    found = rows_of_inputs(run, specs, feeds)
    assert {name: (rows.low, rows.high) for name, rows in found.items()} == {"a": (0, 29), "b": (0, 11)}


def test_of_a_large_table_rows_that_differ_in_the_file_are_tried_first() -> None:
    table = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    wrong = table.copy()
    wrong[4321] += 1e-3
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(wrong, "table")])
    rows = differing_rows(helper.make_model(graph), "", table)
    assert rows is not None
    assert rows.tolist() == [4321]
    tokens = tokens_to_try(Rows(0, 4999, 0, None), 64, rows, np.random.default_rng(0))
    assert len(tokens) == len(set(tokens.tolist())) == 64
    assert {0, 4999, 4321} <= set(tokens.tolist())
    assert differing_rows(helper.make_model(graph), "", table[:-1]) is None


# --- half precision ---------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 16, 2, batch_first=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])


def test_a_half_precision_module_is_proven(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Net().eval().half(), tmp_path / "m.onnx"
    before = {name: value.clone() for name, value in module.state_dict().items()}
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 5, 8).half(),))
    report = lstm_onnx.verify(module, path, provider="cpu", threads=1)
    assert report, str(report)
    loud = [case.label for case in report.cases if case.label.startswith("weights amplified")]
    assert len(loud) == 3
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
