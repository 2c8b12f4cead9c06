"""Outputs that are small beside 1, features that are small beside others, and integers that differ in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx import ParityReport, verify_golden
from lstm_onnx.exporter.functional.operator_roundings import OperatorRoundings
from lstm_onnx.parity.criterion import compare

pytestmark = pytest.mark.sweep(18)


class Scaled(nn.Module):
    """A head with other units for each of its features, or softmax and sigmoid of very negative numbers."""

    def __init__(self, *sizes: float, squashed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, len(sizes))
        self.squashed = squashed
        self.register_buffer("sizes", torch.tensor(sizes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.lstm(x)[0])
        return torch.sigmoid(y - self.sizes) if self.squashed else y * self.sizes


class Chosen(nn.Module):
    """The largest of several scores, and whether the first is positive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.lstm(x)[0]
        return y.argmax(-1), y[..., 0] > 0


def _verify(module: nn.Module, path: Path, golden: Path | None = None) -> ParityReport:
    return lstm_onnx.verify(module, path, provider="cpu", threads=1, mutants="none", golden=golden)


def _exported(module: nn.Module, folder: Path) -> Path:
    lstm_onnx.export(module, folder / "m.onnx", example_inputs=torch.randn(2, 5, 3))
    return folder / "m.onnx"


def _multiplied(path: Path, factors: list[float]) -> Path:
    """A copy of the file with its output times these."""
    model = onnx.load(path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(factors, np.float32), "factors"))
    model.graph.node.append(helper.make_node("Mul", ["before", "factors"], [output.name]))
    changed = path.with_name("wrong.onnx")
    onnx.save(model, changed)
    return changed


@pytest.mark.parametrize(
    ("sizes", "factors"),
    [((1e-6, 1e-6), [1.01, 1.01]), ((1000.0, 0.0, 0.01), [1.0, 1.0, -1.0]), ((1e5, 1.0), [1.0, 1.001])],
)
def test_small_features_are_judged_by_their_own_size(
    sizes: tuple[float, ...], factors: list[float], tmp_path: Path
) -> None:
    module, golden = Scaled(*sizes), tmp_path / "golden.npz"
    path = _exported(module, tmp_path)
    assert _verify(module, path, golden)
    assert verify_golden(path, golden, provider="cpu", threads=1)
    wrong = _multiplied(path, factors)
    report = _verify(module, wrong)
    assert not report
    assert all(not case.passed for case in report.cases if case.kind == "whole")
    assert not verify_golden(wrong, golden, provider="cpu", threads=1)


@pytest.mark.parametrize("axis", [1, 2])
def test_small_channels_are_judged_by_their_own_size(axis: int, tmp_path: Path) -> None:
    """Boxes in pixels beside scores, as (batch, channels, time) and as (batch, time, 2, features)."""

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.lstm, self.boxes, self.scores = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.lstm(x)[0]
            found: list[Tensor] = [1000 * self.boxes(y), self.scores(y).sigmoid()]
            return torch.cat(found, -1).transpose(1, 2) if axis == 1 else torch.stack(found, -2)

    module, golden = Detector(), tmp_path / "golden.npz"
    path = _exported(module, tmp_path)
    assert _verify(module, path, golden)
    assert verify_golden(path, golden, provider="cpu", threads=1)
    model = onnx.load(path)
    bias = next(one for one in model.graph.initializer if one.name == "scores.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1e-3), bias.name))
    onnx.save(model, path)
    assert not _verify(module, path)
    assert not verify_golden(path, golden, provider="cpu", threads=1)


def test_what_a_function_rounds_to_0_is_right(tmp_path: Path) -> None:
    """A sigmoid of -15 is 3e-7, and libraries differ by a rounding of 1."""
    module = Scaled(0.0, 15.0, 60.0, squashed=True)
    path = _exported(module, tmp_path)
    assert _verify(module, path)


def test_an_output_without_numbers_is_compared(tmp_path: Path) -> None:
    """The strided convolution's transpose, cut at both ends, gives nothing for a sequence of one step."""

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.up = nn.GRU(3, 4, batch_first=True), nn.ConvTranspose1d(4, 2, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.rnn(x)[0].mT)[..., 1:-1]

    torch.manual_seed(0)
    module, path = Cut().eval(), tmp_path / "m.onnx"
    shapes = {"x": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=torch.randn(2, 5, 3), dynamic_shapes=shapes)
    assert lstm_onnx.verify(module, path, mutants="none")


def test_a_feature_has_its_own_unit() -> None:
    reference = np.array([[1000.0, 0.5], [500.0, 0.25]])
    off = reference + np.array([[0.001, 0.0], [0.0, 1e-5]])
    options = {"dtype": "float32", "scale": 1.0, "least_error": 1e-4}
    found = compare("y", off, reference, reference, **options, units=np.array([1.0, 1e-7]))  # type: ignore[arg-type]
    assert compare("y", off, reference, reference, **options).passed  # type: ignore[arg-type]
    assert not found.passed
    assert found.where == (1, 1)
    assert found.allowed == pytest.approx(32e-7)
    assert found.ratio == pytest.approx(100)


@pytest.mark.parametrize(
    ("run", "size"),
    [
        (lambda x: x * 1e-6, 1e-6),
        (lambda x: torch.sigmoid(x), 1.0),
        (lambda x: x - 1.0, 2.0),
        (lambda x: x.expand(2, 3, 1000).sum(1), 3.0),
        (lambda x: torch.empty(1000, dtype=x.dtype).copy_(x * -1e-6).abs_(), 3e-6),
    ],
    ids=["mul", "sigmoid", "sub", "sum", "in place"],
)
def test_operator_roundings_are_of_their_size(run: Callable[[Tensor], Tensor], size: float) -> None:
    x = torch.full((1000,), 1.0, dtype=torch.float64)
    with OperatorRoundings(1e-3, seed=0):
        moved = run(x)
    assert 0.5e-3 * size < (moved - run(x)).abs().max() <= 1.01e-3 * size


def test_views_and_constants_are_exact() -> None:
    x = torch.ones(4, 3, dtype=torch.float64)
    with OperatorRoundings(1e-3, seed=0):
        assert torch.equal(x.t()[0], x[:, 0])
        assert torch.equal(torch.zeros(2), torch.zeros(2))
        assert torch.equal(x.argmax(-1), torch.zeros(4, dtype=torch.int64))


def test_one_wrong_integer_is_wrong_unless_rounding_decides_it(tmp_path: Path) -> None:
    module = Chosen()
    path = _exported(module, tmp_path)
    assert _verify(module, path)
    model = onnx.load(path)
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    for name, array in (("one", np.array(1)), ("at", np.array([[0, 20]]))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    size = [helper.make_node("Shape", ["before"], ["size"]), helper.make_node("Sub", ["size", "one"], ["last"])]
    place = [helper.make_node("Min", ["at", "last"], ["place"])]
    late = [
        helper.make_node("Equal", ["place", "at"], ["there"]),
        helper.make_node("Cast", ["there"], ["counted"], to=onnx.TensorProto.INT64),
        helper.make_node("ReduceMin", ["counted"], ["change"], keepdims=0),
        helper.make_node("Unsqueeze", ["change", "axis"], ["changes"]),
        helper.make_node("ScatterND", ["before", "place", "changes"], ["added"], reduction="add"),
        helper.make_node("Identity", ["added"], [output]),
    ]
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    model.graph.node.extend([*size, *place, *late])
    onnx.save(model, tmp_path / "wrong.onnx")
    report = _verify(module, tmp_path / "wrong.onnx")
    assert not report
    # Also at the thresholds, which rounding does not decide.
    assert {case.kind for case in report.cases if not case.passed} == {"sweep", "values"}


def test_small_features_of_a_wide_output(tmp_path: Path) -> None:
    module = Scaled(*(10.0 ** -(feature % 6) for feature in range(80)))
    path = _exported(module, tmp_path)
    report = _verify(module, path)
    assert report, report
    model = onnx.load(path)
    sizes = next(one for one in model.graph.initializer if one.dims == [80] and numpy_helper.to_array(one)[0] == 1)
    wrong = numpy_helper.to_array(sizes).copy()
    wrong[77] *= 1.001  # 1e-5, whose feature the further cases leave out
    sizes.CopyFrom(numpy_helper.from_array(wrong, sizes.name))
    onnx.save(model, path)
    assert not _verify(module, path)
