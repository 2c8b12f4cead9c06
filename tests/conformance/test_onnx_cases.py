"""The onnx package's own node tests that hold an LSTM, a GRU or an RNN: each right, or refused by a rule."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, numpy_helper

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.errors import ModelError
from lstm_onnx.inspect import inspect

from .nodes import INPUTS, compare
from .onnx_lstm import lstm

OPERATORS = ("LSTM", "GRU", "RNN")
RIGHT, LAYOUT = "right", "layout=1"
EXPECTED = {
    "test_lstm_defaults": RIGHT,
    "test_lstm_with_initial_bias": RIGHT,
    "test_lstm_with_peepholes": RIGHT,
    "test_lstm_batchwise": LAYOUT,
    "test_lstm_reverse": RIGHT,
    "test_lstm_bidirectional": RIGHT,
    "test_gru_defaults": RIGHT,
    "test_gru_with_initial_bias": RIGHT,
    "test_gru_seq_length": RIGHT,
    "test_gru_batchwise": LAYOUT,
    "test_gru_reverse": RIGHT,
    "test_gru_bidirectional": RIGHT,
    "test_simple_rnn_defaults": RIGHT,
    "test_simple_rnn_with_initial_bias": RIGHT,
    "test_rnn_seq_length": RIGHT,
    "test_simple_rnn_batchwise": LAYOUT,
    "test_simple_rnn_reverse": RIGHT,
    "test_simple_rnn_bidirectional": RIGHT,
}
"""What becomes of each.  ONNX Runtime does not run layout 1, so that `load` and `check` refuse it."""
KINDS = ("node", "simple", "real", "light", "pytorch-converted", "pytorch-operator")
"""The folders and modules that the package keeps its tests in."""
FIXED = "dynamic-axes"
LAYOUT_RULES = {"layout", "runnable"}
ATOL = 1e-6


class Case(NamedTuple):
    """A model, and what it takes and gives by name."""

    model: ModelProto
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


@cache
def cases() -> dict[str, Case]:
    """By name.  Those of these operators alone: to make all 1,884 takes seconds."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = importlib.import_module("onnx.backend.test.case.node")
        for operator in OPERATORS:
            importlib.import_module(f"onnx.backend.test.case.node.{operator.lower()}")
        made = list(package._NodeTestCases)
    for case in made:
        if holds(case.model.graph):
            ((inputs, outputs),) = case.data_sets
            names = [item.name for item in case.model.graph.input], [item.name for item in case.model.graph.output]
            found[case.name] = Case(
                case.model,
                dict(zip(names[0], inputs, strict=True)),
                dict(zip(names[1], outputs, strict=True)),
            )
    return found


def holds(graph: GraphProto) -> bool:
    """Whether one of the operators is in it or in a body."""
    for node in graph.node:
        bodies = [body for attribute in node.attribute for body in (attribute.g, *attribute.graphs)]
        if node.op_type in OPERATORS or any(holds(body) for body in bodies):
            return True
    return False


def saved(case: Case, path: Path, *, is_open: bool = False) -> Path:
    """As it comes, with every size fixed, or with time and batch open."""
    model = ModelProto()
    model.CopyFrom(case.model)
    if is_open:
        (node,) = model.graph.node
        ends = {item.name: item.type.tensor_type.shape.dim for item in (*model.graph.input, *model.graph.output)}
        layout = next((item.i for item in node.attribute if item.name == "layout"), 0)
        for name, axes in open_axes(node, layout):
            for axis, label in axes.items():
                ends[name][axis].dim_param = label
    path.write_bytes(model.SerializeToString())
    return path


def open_axes(node: onnx.NodeProto, layout: int) -> Iterator[tuple[str, dict[int, str]]]:
    """Which axes of the node's inputs and outputs are its time and its batch."""
    sequence = {0: "batch", 1: "time"} if layout else {0: "time", 1: "batch"}
    state = {0: "batch"} if layout else {1: "batch"}
    everything = {0: "batch", 1: "time"} if layout else {0: "time", 2: "batch"}
    inputs = {0: sequence, 4: {0: "batch"}, 5: state, 6: state}
    outputs = {0: everything, 1: state, 2: state}
    for names, axes in ((node.input, inputs), (node.output, outputs)):
        yield from ((name, axes[at]) for at, name in enumerate(names) if name and at in axes)


def feeds_of(case: Case) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in case.inputs.items()}


def test_every_case_of_these_operators_is_classified():
    assert set(cases()) == set(EXPECTED)


@pytest.mark.slow
def test_there_are_no_others_in_all_of_the_package():
    """A case that a newer onnx brings fails here until it is told in the table; none is left out without a word."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = set()
        for kind in KINDS:
            for case in load_model_tests(kind=kind):
                path = Path(case.model_dir or "", "model.onnx")
                if case.model is None and not path.is_file():
                    # Models of the size of ResNet, which the package only knows where to download: none recurs.
                    assert kind == "real", case.name
                    continue
                model = case.model or onnx.load_model(path, load_external_data=False)
                if holds(model.graph) or any(node.op_type in OPERATORS for f in model.functions for node in f.node):
                    named.add(case.name)
    assert named == set(EXPECTED)


@pytest.mark.parametrize("name", [name for name, verdict in EXPECTED.items() if verdict == RIGHT])
@pytest.mark.parametrize("is_open", [False, True])
def test_run_is_right(name, is_open, run_cli, tmp_path):
    case = cases()[name]
    path = saved(case, tmp_path / "m.onnx", is_open=is_open)
    compare(lstm_onnx.load(path, provider="cpu").run(feeds_of(case)), case.outputs, atol=ATOL, rtol=0)
    np.savez(tmp_path / "in.npz", **feeds_of(case))
    done = run_cli("run", "m.onnx", "in.npz", "-o", "out.npz", "--provider", "cpu")
    assert done.code == 0, done.err
    with np.load(tmp_path / "out.npz") as written:
        compare(dict(written), case.outputs, atol=ATOL, rtol=0)


@pytest.mark.parametrize("name", [name for name, verdict in EXPECTED.items() if verdict == RIGHT])
def test_check_refuses_their_fixed_sizes_and_nothing_else(name, tmp_path):
    case = cases()[name]
    fixed = check(saved(case, tmp_path / "fixed.onnx"), provider="cpu")
    assert {finding.rule for finding in fixed.failures} == {FIXED}, str(fixed)
    assert "batch is fixed" in str(fixed)
    opened = check(saved(case, tmp_path / "open.onnx", is_open=True), provider="cpu")
    assert opened, str(opened)


@pytest.mark.parametrize("name", [name for name, verdict in EXPECTED.items() if verdict == LAYOUT])
@pytest.mark.parametrize("is_open", [False, True])
def test_layout_1_is_refused(name, is_open, run_cli, tmp_path):
    case = cases()[name]
    path = saved(case, tmp_path / "m.onnx", is_open=is_open)
    with pytest.raises(ModelError, match="layout == 1"):
        lstm_onnx.load(path, provider="cpu")
    report = check(path, provider="cpu")
    assert not report
    failing = {finding.rule for finding in report.failures}
    assert failing >= LAYOUT_RULES, str(report)
    assert (FIXED in failing) is not is_open
    np.savez(tmp_path / "in.npz", **feeds_of(case))
    done = run_cli("run", "m.onnx", "in.npz", "--provider", "cpu")
    assert done.code == 2
    assert "layout == 1" in done.err
    assert run_cli("check", "m.onnx", "--provider", "cpu").code == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_inspect_tells_their_sizes(name, tmp_path):
    case = cases()[name]
    (found,) = inspect(saved(case, tmp_path / "m.onnx")).lstms
    assert found.kind == name.removeprefix("test_").removeprefix("simple_").split("_")[0].upper()
    assert found.input_size == case.inputs["X"].shape[2]
    assert found.hidden_size == case.inputs["R"].shape[2]
    assert found.direction == ([word for word in ("reverse", "bidirectional") if word in name] or ["forward"])[0]
    assert found.bias is ("B" in case.inputs)
    assert ("layout=1 (batch first), which ONNX Runtime refuses" in found.notes) is (EXPECTED[name] == LAYOUT)
    assert found.parameters == 0  # the weights are inputs, and stored nowhere


@pytest.mark.parametrize("name", [name for name in EXPECTED if "lstm" in name])
def test_their_numbers_are_those_of_our_yardstick(name):
    """Batch first, too, which nothing else here can compute."""
    case = cases()[name]
    (node,) = case.model.graph.node
    attributes: dict[str, Any] = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()}
    given = [feeds_of(case).get(key) for key in INPUTS]
    results = dict(zip(("Y", "Y_h", "Y_c"), lstm(*given, **attributes), strict=True))
    compare({key: results[key] for key in case.outputs}, case.outputs, atol=ATOL, rtol=0)


def test_stored_weights_are_counted(tmp_path):
    """The same node with its weights as initializers, as real files have them."""
    case = cases()["test_lstm_with_peepholes"]
    model = ModelProto()
    model.CopyFrom(case.model)
    stored = [name for name in ("W", "R", "B", "P") if name in case.inputs]
    for name in stored:
        model.graph.initializer.append(numpy_helper.from_array(case.inputs[name], name))
        model.graph.input.remove(next(item for item in model.graph.input if item.name == name))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (found,) = inspect(path).lstms
    assert found.parameters == sum(case.inputs[name].size for name in stored) == 4 * 3 * (4 + 3) + 8 * 3 + 3 * 3
    # 2 products of 4H rows, their biases, the peepholes, and nine operations on each unit.
    assert found.flops_per_step == 2 * 12 * (4 + 3) + 12 + 6 * 3 + 9 * 3
    feeds = {name: array for name, array in feeds_of(case).items() if name not in stored}
    compare(lstm_onnx.load(path, provider="cpu").run(feeds), case.outputs, atol=ATOL, rtol=0)
