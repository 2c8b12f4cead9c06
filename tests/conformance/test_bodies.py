"""An LSTM within an If, a Loop, a Scan or a model function: found, checked, run and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import GraphProto, TensorProto, helper

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.inspect import inspect

from .by_hand import PARAMETERS, SIZE, B, H, graph_of, inputs_of, lstm_node, run, weights
from .nodes import Array, Node, compare, save

FLOPS = 8 * H * (SIZE + H) + 4 * H + 9 * H
STATE = (1, "batch", H)


def body_of(nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> GraphProto:
    """A body, by its inputs' and outputs' shapes; a pair has its type first."""

    def info(name: str, shape: Any) -> onnx.ValueInfoProto:
        kind, shape = shape if isinstance(shape, list) else (TensorProto.FLOAT, shape)
        return helper.make_tensor_value_info(name, kind, shape)

    ends = [[info(name, shape) for name, shape in side.items()] for side in (inputs, outputs)]
    return helper.make_graph(nodes, "body", *ends)


def require_one_lstm(path: Path, states: tuple[str, ...] = ()) -> None:
    (found,) = inspect(path).lstms
    assert (found.name, found.input_size, found.hidden_size, found.bias) == ("rnn", SIZE, H, True)
    assert (found.parameters, found.flops_per_step, found.states) == (PARAMETERS, FLOPS, states)
    report = check(path, provider="cpu")
    assert report, str(report)


def test_within_an_if(tmp_path):
    """Forwards or backwards, as the caller asks."""
    given = inputs_of("initial_h", "initial_c")
    branches = {}
    for name, direction in (("then_branch", "forward"), ("else_branch", "reverse")):
        names = [f"{direction}_{output}" for output in ("Y", "Y_h", "Y_c")]
        node = lstm_node(
            "X", "W", "R", "B", "", "initial_h", "initial_c", name=direction, outputs=names, direction=direction
        )  # fmt: skip
        shapes = (("time", *STATE), STATE, STATE)
        branches[name] = body_of([node], {}, dict(zip(names, shapes, strict=True)))
    choice = helper.make_node("If", ["ahead"], ["Y", "Y_h", "Y_c"], "choice", **branches)
    ends = {"X": ("time", "batch", SIZE), "initial_h": STATE, "initial_c": STATE, "ahead": ()}
    outputs = {"Y": ("time", *STATE), "Y_h": STATE, "Y_c": STATE}
    graph = graph_of([choice], ends, outputs, weights(given), {"ahead": TensorProto.BOOL})
    path = save(graph, tmp_path / "m.onnx")
    found = inspect(path)
    assert sorted((lstm.name, lstm.direction) for lstm in found.lstms) == [("forward",) * 2, ("reverse",) * 2]
    assert {lstm.states for lstm in found.lstms} == {("initial_h", "initial_c")}
    assert found.parameters == PARAMETERS
    report = check(path, provider="cpu")
    assert report, str(report)
    feeds = {name: given[name] for name in ("X", "initial_h", "initial_c")}
    for ahead in (True, False):
        expected = Node(given, {"direction": "forward" if ahead else "reverse"}).reference()
        compare(run(path, {**feeds, "ahead": np.array(ahead)}), expected)
    # States that only bodies use are states all the same.
    model = lstm_onnx.load(path, provider="cpu", states={"initial_h": "Y_h", "initial_c": "Y_c"})
    # The flag chooses a direction, and one of them has no streams: the caller knows which.
    stream = model.stream(batch=B, check=False)
    stream.state = {name: given[name] for name in ("initial_h", "initial_c")}
    parts = [stream.run({"X": part, "ahead": np.array(True)})["Y"] for part in np.split(given["X"], [2, 3])]
    compare({"Y": np.concatenate(parts)}, {"Y": Node(given).reference()["Y"]})


def looped(tmp_path: Path) -> tuple[dict[str, Array], Path]:
    """A decoder: each round takes one step from what the last one gave, its first H features being the input."""
    given = inputs_of("initial_h", "initial_c")
    nodes = [
        helper.make_node("Concat", ["h", "extra"], ["x"], axis=2),
        lstm_node("x", "W", "R", "B", "", "h", "c", outputs=["", "h_next", "c_next"]),
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node("Identity", ["h_next"], ["h_out"]),
    ]
    flag, count = [TensorProto.BOOL, ()], [TensorProto.INT64, ()]
    body = body_of(
        nodes,
        {"round": count, "go": flag, "h": STATE, "c": STATE},
        {"go_on": flag, "h_next": STATE, "c_next": STATE, "h_out": STATE},
    )
    loop = helper.make_node("Loop", ["rounds", "", "initial_h", "initial_c"], ["h_n", "c_n", "all"], "loop", body=body)
    ends = {"rounds": (), "extra": (1, "batch", SIZE - H), "initial_h": STATE, "initial_c": STATE}
    outputs = {"h_n": STATE, "c_n": STATE, "all": ("rounds_done", *STATE)}
    graph = graph_of([loop], ends, outputs, weights(given), {"rounds": TensorProto.INT64})
    return given, save(graph, tmp_path / "m.onnx")


def test_within_a_loop(tmp_path):
    given, path = looped(tmp_path)
    require_one_lstm(path, ("initial_h", "initial_c"))
    extra = np.random.default_rng(3).normal(0, 1, (1, B, SIZE - H)).astype(np.float32)
    h, c, every = given["initial_h"], given["initial_c"], []
    for _ in range(4):
        x = np.concatenate([h, extra], axis=2)
        step = Node({**given, "X": x, "initial_h": h, "initial_c": c}).reference()
        h, c = step["Y_h"], step["Y_c"]
        every.append(h)
    feeds = {"rounds": np.array(4), "extra": extra, **{name: given[name] for name in ("initial_h", "initial_c")}}
    compare(run(path, feeds), {"h_n": h, "c_n": c, "all": np.stack(every)})


def test_a_loop_streams_its_rounds(tmp_path):
    given, path = looped(tmp_path)
    model = lstm_onnx.load(path, provider="cpu", states={"initial_h": "h_n", "initial_c": "c_n"})
    extra = np.random.default_rng(3).normal(0, 1, (1, B, SIZE - H)).astype(np.float32)
    state = {name: given[name] for name in ("initial_h", "initial_c")}
    whole = model.run({"rounds": np.array(5), "extra": extra, **state})
    stream = model.stream(batch=B)
    stream.state = state
    parts = [stream.run({"rounds": np.array(rounds), "extra": extra})["all"] for rounds in (1, 3, 1)]
    compare({"all": np.concatenate(parts)}, {"all": whole["all"]})
    compare(stream.state, {"initial_h": whole["h_n"], "initial_c": whole["c_n"]})


@pytest.mark.parametrize("backwards", [0, 1])
def test_within_a_scan(backwards, tmp_path):
    """Step by step, with the time axis taken off and put on again, from the front or from the end."""
    given = inputs_of("initial_h", "initial_c")
    nodes = [
        helper.make_node("Unsqueeze", ["x", "zero"], ["x1"]),
        lstm_node("x1", "W", "R", "B", "", "h", "c", outputs=["", "h_next", "c_next"]),
        helper.make_node("Identity", ["h_next"], ["y"]),
    ]
    body = body_of(
        nodes,
        {"h": STATE, "c": STATE, "x": ("batch", SIZE)},
        {"h_next": STATE, "c_next": STATE, "y": STATE},
    )
    scan = helper.make_node(
        "Scan",
        ["initial_h", "initial_c", "X"],
        ["Y_h", "Y_c", "Y"],
        "scan",
        body=body,
        num_scan_inputs=1,
        scan_input_directions=[backwards],
        scan_output_directions=[backwards],
    )
    ends = {"X": ("time", "batch", SIZE), "initial_h": STATE, "initial_c": STATE}
    outputs = {"Y_h": STATE, "Y_c": STATE, "Y": ("time", *STATE)}
    stored = {**weights(given), "zero": np.array([0])}
    path = save(graph_of([scan], ends, outputs, stored), tmp_path / "m.onnx")
    require_one_lstm(path, ("initial_h", "initial_c"))
    expected = Node(given, {"direction": "reverse" if backwards else "forward"}).reference()
    feeds = {name: given[name] for name in ends}
    compare(run(path, feeds), expected)
    if not backwards:
        model = lstm_onnx.load(path, provider="cpu", states={"initial_h": "Y_h", "initial_c": "Y_c"})
        stream = model.stream(batch=B)
        stream.state = {name: given[name] for name in ("initial_h", "initial_c")}
        parts = [stream(part) for part in np.split(given["X"], [1, 4])]
        compare({"Y": np.concatenate(parts)}, {"Y": expected["Y"]})


def test_within_a_function(tmp_path):
    """As exporters that keep a module's layers apart write them."""
    given = inputs_of()
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function(
        "local", "Layer", ["X", "W", "R", "B"], ["Y"], [lstm_node("X", "W", "R", "B", outputs=["Y"])], opsets
    )
    call = helper.make_node("Layer", ["X", "W", "R", "B"], ["Y"], "layer", domain="local")
    graph = graph_of([call], {"X": ("time", "batch", SIZE)}, {"Y": ("time", 1, "batch", H)}, weights(given))
    model = helper.make_model(
        graph, functions=[function], opset_imports=[*opsets, helper.make_opsetid("local", 1)], ir_version=8
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (found,) = inspect(path).lstms
    assert (found.input_size, found.hidden_size, found.parameters) == (SIZE, H, PARAMETERS)
    report = check(path, provider="cpu")
    assert report, str(report)
    compare(run(path, {"X": given["X"]}), Node(given, {}, ("Y",)).reference())


def test_weights_of_a_body_are_its_own(tmp_path):
    """Initializers may lie in the body, where nothing outside sees them."""
    given = inputs_of()
    node = lstm_node("X", "W", "R", "B", outputs=["y"])
    inner = graph_of([node], {}, {"y": ("time", 1, "batch", H)}, weights(given))
    other = body_of([helper.make_node("Constant", [], ["n"], value_float=0.0),
                     helper.make_node("Reshape", ["n", "ones"], ["n4"])], {}, {"n4": (1, 1, 1, 1)})  # fmt: skip
    choice = helper.make_node("If", ["on"], ["Y"], "choice", then_branch=inner, else_branch=other)
    outputs = {"Y": (None, 1, None, None)}
    ends = {"X": ("time", "batch", SIZE), "on": ()}
    graph = graph_of([choice], ends, outputs, {"ones": np.ones(4, np.int64)}, {"on": TensorProto.BOOL})
    path = save(graph, tmp_path / "m.onnx")
    (found,) = inspect(path).lstms
    assert found.parameters == PARAMETERS
    assert inspect(path).parameters == PARAMETERS
    compare(run(path, {"X": given["X"], "on": np.array(True)}), {"Y": Node(given, {}, ("Y",)).reference()["Y"]})
    off = run(path, {"X": given["X"], "on": np.array(False)})
    np.testing.assert_array_equal(off["Y"], np.zeros((1, 1, 1, 1)))
