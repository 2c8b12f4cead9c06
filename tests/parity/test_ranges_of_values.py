"""Files that are wrong for some values alone: in each of these ranges is a case."""

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
from lstm_onnx.parity import LSTMVerification

from .files import edit_file, lstm, verified


class _Graph:
    """Nodes to add to a model; values may be names or numbers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.count = 0

    def __call__(self, kind: str, *inputs: str | float | np.ndarray, **attributes: object) -> str:
        self.count += 1
        name = f"added/{self.count}"
        names = [value if isinstance(value, str) else self._stored(value) for value in inputs]
        self.model.graph.node.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def _stored(self, value: float | np.ndarray) -> str:
        self.count += 1
        array = value if isinstance(value, np.ndarray) else np.float32(value)
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), f"stored/{self.count}"))
        return f"stored/{self.count}"

    def every(self, value: str) -> str:
        """Whether all of a tensor of bools are true."""
        number = self("ReduceMin", self("Cast", value, to=TensorProto.INT32), keepdims=0)
        return self("Cast", number, to=TensorProto.BOOL)

    def some(self, value: str) -> str:
        return self("Not", self.every(self("Not", value)))


Condition = Callable[[_Graph], str]


def _wrong(condition: Condition, output: str) -> Callable[[onnx.ModelProto], None]:
    """An edit: an output is off by 1 where the condition holds."""

    def edit(model: onnx.ModelProto) -> None:
        graph = _Graph(model)
        for node in model.graph.node:
            for at, name in enumerate(node.output):
                node.output[at] = "right" if name == output else name
        (kind,) = (value.type.tensor_type.elem_type for value in model.graph.output if value.name == output)
        off = graph("Add", "right", np.ones((), helper.tensor_dtype_to_np_dtype(kind)))
        model.graph.node.append(helper.make_node("Where", [condition(graph), off, "right"], [output]))

    return edit


def _below(name: str, limit: float) -> Condition:
    return lambda graph: graph(
        "And",
        graph("Less", graph("ReduceMax", graph("Abs", name), keepdims=0), limit),
        graph.some(graph("Greater", graph("Abs", name), 0.0)),
    )


def _between(name: str, low: float, high: float) -> Condition:
    return lambda graph: graph("And", graph.every(graph("Greater", name, low)), graph.every(graph("Less", name, high)))


def _zeros_at_the_end(graph: _Graph) -> str:
    last = graph("Slice", "input", np.array([-1]), np.array([2**31]), np.array([0]))
    return graph(
        "And", graph.every(graph("Equal", last, 0.0)), graph.some(graph("Greater", graph("Abs", "input"), 0.0))
    )


def _a_row_of_zeros(graph: _Graph) -> str:
    rows = graph("ReduceMax", graph("Abs", "c0"), np.array([0, 2]), keepdims=0)
    return graph("And", graph.some(graph("Equal", rows, 0.0)), graph.some(graph("Greater", rows, 0.0)))


def _zero_h(graph: _Graph) -> str:
    return graph("And", graph.every(graph("Equal", "h0", 0.0)), graph.some(graph("Greater", graph("Abs", "c0"), 0.0)))


CONDITIONS: dict[str, Condition] = {
    "small": _below("input", 0.1),
    "tiny": _below("input", 1e-6),
    "small states": _below("h0", 0.02),
    "from 0 to 1": _between("input", 0.0, 1.0),
    "not normalized": _between("input", 10.0, 30.0),
    "negative, not normalized": _between("input", -30.0, -10.0),
    "padding": _zeros_at_the_end,
    "one row's states": _a_row_of_zeros,
    "h alone": _zero_h,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("plain") / "m.onnx"
    lstm_onnx.export(lstm(), path)
    assert verified(lstm(), path)
    return path.read_bytes()


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_file_that_is_wrong_in_a_range_alone(name: str, plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(plain)
    edit_file(path, _wrong(CONDITIONS[name], "output"))
    results = LSTMVerification(lstm_onnx.load(path, provider="cpu", threads=1), lstm()).results()
    assert any(not result.passed for result in results)


class Masked(nn.Module):
    """Attention over the steps that a mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.score = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        y = self.lstm(x)[0]
        weights = self.score(y)[..., 0].masked_fill(~mask, -1e9).softmax(-1)
        return (weights[..., None] * y).sum(1), weights.argmax(-1)


def _all_true(graph: _Graph) -> str:
    return graph("And", graph.every("mask"), graph("Greater", graph("Size", "mask"), np.array(1)))


def _true_first(graph: _Graph) -> str:
    numbers = graph("Cast", "mask", to=TensorProto.INT64)
    steps = graph("Range", np.array(0), graph("Gather", graph("Shape", "mask"), np.array(1)), np.array(1))
    lengths = graph("ReduceSum", numbers, np.array([1]), keepdims=1)
    first = graph.every(graph("Equal", graph("Less", steps, lengths), "mask"))
    # At smaller sizes random masks are in that order by chance.
    several = graph("Greater", graph("Size", "mask"), np.array(11))
    return graph("And", graph("And", first, several), graph("Not", graph.every("mask")))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, bytes]:
    path = tmp_path_factory.mktemp("masked") / "m.onnx"
    torch.manual_seed(0)
    module = Masked().eval()
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    shapes = {"x": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}}
    lstm_onnx.export(module, path, example_inputs=(torch.randn(2, 5, 4), mask), dynamic_shapes=shapes)
    report = verified(module, path)
    assert report, str(report)
    assert report.notes == ()
    return module, path.read_bytes()


@pytest.mark.parametrize(
    ("condition", "output"),
    [(_all_true, "output.0"), (_true_first, "output.0"), (_between("x", 0.0, 1.0), "output.1")],
    ids=["all true", "true first", "integers, from 0 to 1"],
)
def test_a_file_that_is_wrong_for_some_masks(
    condition: Condition, output: str, masked: tuple[nn.Module, bytes], tmp_path: Path
) -> None:
    module, path = masked[0], tmp_path / "m.onnx"
    path.write_bytes(masked[1])
    edit_file(path, _wrong(condition, output))
    assert not verified(module, path)
