"""What no output depends on changes nothing: it is proven by the graph, and the numbers are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import lstm_onnx
from lstm_onnx.parity.mutants.catalogue import MUTATORS
from lstm_onnx.parity.mutants.effect import live_values, same_by_graph
from lstm_onnx.parity.mutants.equivalence import Outcome
from lstm_onnx.parity.mutants.graph_edit import Edit, known_shapes
from lstm_onnx.parity.mutants.self_test import mutated
from lstm_onnx.runtime.providers import open_session

pytestmark = pytest.mark.sweep(9)

UNREAD = "no output depends on it"


class Results(NamedTuple):
    """Those of an LSTM."""

    y: Tensor
    h: Tensor
    c: Tensor


Read = Callable[[Results], Any]


class Reader(nn.Module):
    """An LSTM, of whose results `read` takes a part."""

    def __init__(self, read: Read, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, **{"num_layers": 3, **options})
        self.read = read

    def forward(self, x: Tensor) -> Any:
        y, (h, c) = self.lstm(x)
        return self.read(Results(y, h, c))


def _file(folder: Path, read: Read, **options: Any) -> Path:
    torch.manual_seed(0)
    path = folder / "m.onnx"
    shapes = {"x": {0: "time", 1: "batch"}}
    module = Reader(read, **options).eval()
    lstm_onnx.export(module, path, example_inputs=torch.randn(4, 2, 4), dynamic_shapes=shapes)
    return path


def _ran(graph: onnx.ModelProto) -> list[np.ndarray]:
    session, _ = open_session(graph.SerializeToString(), "cpu", 1)
    x = np.random.default_rng(0).standard_normal((6, 3, 4)).astype(np.float32)
    outputs: list[np.ndarray] = session.run(None, {"x": x})
    return outputs


def _outcomes(path: Path) -> dict[tuple[str, int], tuple[Outcome, onnx.ModelProto]]:
    graph = onnx.load(path)
    shapes, layers = known_shapes(graph), len(Edit(graph).layers)
    return {
        (mutator.name, layer): mutated(graph, mutator, layer, str(path.parent), shapes)
        for mutator in MUTATORS
        for layer in range(layers)
        if not mutator.once
    }


@pytest.mark.parametrize(
    ("read", "unread"),
    [
        (lambda r: r.h[0], {1, 2}),
        (lambda r: r.h[:2], {2}),
        (lambda r: r.h[[0, 1]], {2}),
        (lambda r: (r.h[0], r.c[-3]), {1, 2}),
        (lambda r: r.h.view(3, 1, -1, 5)[1], {2}),
        (lambda r: r.h.view(3, -1, 5)[1], {2}),
        (lambda r: r.h.sum(0), set()),
        (lambda r: (r.h[0], r.y), set()),
    ],
)
def test_layers_that_nobody_reads(read: Read, unread: set[int], tmp_path: Path) -> None:
    path = _file(tmp_path, read)
    right = _ran(onnx.load(path))
    found = {layer for (name, layer), (done, _) in _outcomes(path).items() if done.reason == UNREAD and "R t" in name}
    assert found == unread
    for (name, layer), (outcome, copy) in _outcomes(path).items():
        if outcome.reason == UNREAD:
            for one, other in zip(right, _ran(copy), strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{name} {layer}")


def test_the_exchange_with_a_layer_that_is_read_is_none_of_these(tmp_path: Path) -> None:
    outcomes = _outcomes(_file(tmp_path, lambda r: (r.h[0], r.c[0])))
    for state in "hc":
        assert outcomes[f"final {state} of two layers exchanged", 0][0].applied
        assert not outcomes[f"final {state} of two layers exchanged", 1][0].applied


def test_another_interface_or_metadata_is_never_the_same(tmp_path: Path) -> None:
    graph = onnx.load(_file(tmp_path, lambda r: r.h[0]))
    for change in ("output", "metadata"):
        other = onnx.ModelProto()
        other.CopyFrom(graph)
        assert same_by_graph(graph, other, {})
        if change == "output":
            other.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        else:
            other.metadata_props[0].value = "null"
        assert not same_by_graph(graph, other, {})


def test_without_shapes_a_concatenation_is_read_whole(tmp_path: Path) -> None:
    graph = onnx.load(_file(tmp_path, lambda r: r.h[0]))
    last = Edit(graph).layers[-1]
    assert not set(last.node.output) & live_values(graph, known_shapes(graph))
    assert set(last.node.output) & live_values(graph, {})


@pytest.mark.parametrize(
    ("first", "proven", "batch_first"), [(True, True, False), (True, True, True), (False, False, False)]
)
def test_of_a_scan_each_direction_is_read_by_itself(
    first: bool, proven: bool, batch_first: bool, tmp_path: Path
) -> None:
    """The last layer's, also behind a Transpose; the one below is read in both directions by it."""
    path = _file(
        tmp_path,
        (lambda r: r.y[..., :3]) if first else (lambda r: r.y[..., 3:]),
        num_layers=2,
        bidirectional=True,
        proj_size=3,
        batch_first=batch_first,
    )
    right = _ran(onnx.load(path))
    outcomes = _outcomes(path)
    for name in ("reverse input unreversed", "run backwards"):
        for layer in (0, 1):
            outcome, copy = outcomes[name, layer]
            equal = all(np.array_equal(one, other) for one, other in zip(right, _ran(copy), strict=True))
            assert equal == (not outcome.applied)
        assert outcomes[name, 0][0].applied
    assert proven == (not outcomes["run backwards", 1][0].applied)


def test_a_circle_has_no_expression_and_is_not_gone_round_for_ever() -> None:
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    nodes = [onnx.helper.make_node("Add", ["x", "b"], ["a"]), onnx.helper.make_node("Neg", ["a"], ["b"])]
    nodes.append(onnx.helper.make_node("Relu", ["a"], ["y"]))
    circle = onnx.helper.make_model(onnx.helper.make_graph(nodes, "circle", [], [value]))
    assert not same_by_graph(circle, circle, {})
    assert live_values(circle, {}) == {"x", "a", "b", "y"}


_LOOP = """
<ir_version: 8, opset_import: ["": 18]>
loop (float[time, 3] x) => ({outputs})
<float[1] one = {{0.5}}, float[1] two = {{-0.25}}, float[1] other = {{2.0}},
 int64[2] rows = {{1, 1}}, int64[1] zero = {{0}}>
{{
  first = Gather(x, zero)
  a = Mul(first, one)
  b = Mul(first, {factor})
  start = Concat <axis = 0> (a, b)
  last, y = Scan <num_scan_inputs = 1, body = step (float[2, 3] state, float[3] x_t)
    => (float[2, 3] next, float[n, 3] y_t) {{
    r0, r1 = Split <axis = 0> (state, rows)
    n0 = Add({row}, x_t)
    n1 = Tanh(r1)
    next = Concat <axis = 0> ({carried})
    y_t = Identity({read})
  }}> (start, x)
}}
"""
"""A loop that carries two rows, which begin as `a` and `b`."""


@pytest.mark.parametrize(
    ("row", "carried", "read", "outputs", "same"),
    [
        ("r0", "n0, n1", "n0", "float[time, 1, 3] y", True),
        ("r0", "n0, n1", "n0", "float[time, 1, 3] y, float[2, 3] last", False),
        ("r0", "n0, n1", "n1", "float[time, 1, 3] y", False),
        ("r0", "n0, n1", "next", "float[time, 2, 3] y", False),
        ("r0", "n1, n0", "n0", "float[time, 1, 3] y", False),
        ("r1", "n0, n1", "n0", "float[time, 1, 3] y", False),
    ],
)
def test_the_rows_of_a_state_that_a_loop_reads(row: str, carried: str, read: str, outputs: str, same: bool) -> None:
    def file(factor: str) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            _LOOP.format(factor=factor, row=row, carried=carried, read=read, outputs=outputs)
        )

    right, wrong = file("two"), file("other")
    x = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    outcomes = [open_session(model.SerializeToString(), "cpu", 1)[0].run(None, {"x": x}) for model in (right, wrong)]
    assert all(np.array_equal(one, other) for one, other in zip(*outcomes, strict=True)) == same
    assert same_by_graph(right, wrong, known_shapes(right)) == same
    assert same_by_graph(right, file("two"), known_shapes(right))
    assert not same_by_graph(right, wrong, {})
