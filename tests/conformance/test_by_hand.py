"""Files written by hand with onnx.helper: what is unusual around an LSTM, inspected, checked, run and streamed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lstm_onnx
from lstm_onnx.check import check
from lstm_onnx.errors import InputError, ModelError, ProviderError
from lstm_onnx.inspect import inspect

from .by_hand import PARAMETERS, SIZE, H, T, graph_of, inputs_of, lstm_node, run, weights
from .nodes import OUTPUTS, WEIGHTS, Node, compare, save

STATES = {"initial_h": "Y_h", "initial_c": "Y_c"}
LAYOUT_RULE, DOUBLE_RULE, EXTERNAL_RULE, BATCH_RULE = "layout", "float64-on-cpu", "external-data", "state-batch"


def require_failure(path: Path, rule: str, words: str) -> None:
    report = check(path, provider="cpu")
    assert not report
    found = [finding for finding in report.failures if finding.rule == rule]
    assert any(words in f"{finding.where} {finding.message}" for finding in found), str(report)


@pytest.mark.sweep(4)
@pytest.mark.parametrize("opset", range(7, 23))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_outputs_at_any_opset(opset, count, tmp_path):
    """Also where but one of them is asked for, as by a classifier that takes Y_h."""
    for outputs in itertools.combinations(OUTPUTS, count):
        node = Node(inputs_of("sequence_lens", "initial_h"), {"direction": "reverse"}, outputs)
        path = node.save(tmp_path / "m.onnx", opset=opset)
        compare(run(path, node.feeds()), node.reference())
        assert inspect(path).opset == opset
        if outputs == ("Y_h",):
            report = check(path, provider="cpu")
            assert report, str(report)


def test_names_that_are_empty(tmp_path):
    """A node without a name goes by its first output that has one; an optional input that is left out is ""."""
    given = inputs_of("initial_c")
    node = lstm_node("X", "W", "R", "B", "", "", "initial_c", name="", outputs=["", "Y_h"])
    ends = {"X": ("time", "batch", SIZE), "initial_c": (1, "batch", H)}
    path = save(graph_of([node], ends, {"Y_h": (1, "batch", H)}, weights(given)), tmp_path / "m.onnx")
    (found,) = inspect(path).lstms
    assert (found.name, found.states, found.lengths) == ("Y_h", ("initial_c",), None)
    expected = Node(given, {}, ("Y_h",)).reference()
    compare(run(path, {name: given[name] for name in ("X", "initial_c")}), expected)
    assert check(path, provider="cpu")


def test_constant_states_fix_the_batch(tmp_path):
    node = Node(inputs_of("initial_h", "initial_c"))
    path = node.save(tmp_path / "m.onnx", stored=WEIGHTS | {"initial_h", "initial_c"})
    compare(run(path, {"X": node.inputs["X"]}), node.reference())
    require_failure(path, BATCH_RULE, "batch is fixed at 2 in the value initial_h")
    (found,) = inspect(path).lstms
    assert (found.states, found.parameters) == ((), PARAMETERS)
    with pytest.raises(lstm_onnx.errors.RunError, match="initial_h"):
        run(path, {"X": node.inputs["X"][:, :1]})


def test_constant_states_expanded_to_the_batch_are_open(tmp_path):
    """What is learned for one row serves all, where the file makes as many."""
    given = inputs_of("initial_h", "initial_c", batch=1)
    nodes = [
        helper.make_node("Shape", ["X"], ["batch"], start=1, end=2),
        helper.make_node("Concat", ["one", "batch", "hidden"], ["shape"], axis=0),
        helper.make_node("Expand", ["h", "shape"], ["initial_h"]),
        helper.make_node("Expand", ["c", "shape"], ["initial_c"]),
        lstm_node("X", "W", "R", "B", "", "initial_h", "initial_c"),
    ]
    stored = {"one": np.array([1]), "hidden": np.array([H]), "h": given["initial_h"], "c": given["initial_c"]}
    shapes = {"Y": ("time", 1, "batch", H), "Y_h": (1, "batch", H), "Y_c": (1, "batch", H)}
    graph = graph_of(nodes, {"X": ("time", "batch", SIZE)}, shapes, {**stored, **weights(given)})
    path = save(graph, tmp_path / "m.onnx")
    report = check(path, provider="cpu")
    assert report, str(report)
    for batch in (1, 5):
        x = np.random.default_rng(batch).normal(0, 1, (T, batch, SIZE)).astype(np.float32)
        wide = {name: given[name].repeat(batch, axis=1) for name in STATES}
        compare(run(path, {"X": x}), Node({**given, "X": x, **wide}).reference())
    assert inspect(path).lstms[0].states == ()


def test_states_of_a_fixed_batch(tmp_path):
    """As exporters of one stream write them: refused for production, and they stream where the batch is theirs."""
    given = inputs_of("initial_h", "initial_c", batch=1)
    node = lstm_node("X", "W", "R", "B", "", "initial_h", "initial_c")
    ends = {"X": ("time", "batch", SIZE), "initial_h": (1, 1, H), "initial_c": (1, 1, H)}
    outputs = {"Y": ("time", 1, "batch", H), "Y_h": (1, 1, H), "Y_c": (1, 1, H)}
    path = save(graph_of([node], ends, outputs, weights(given)), tmp_path / "m.onnx")
    require_failure(path, BATCH_RULE, "batch is fixed at 1 in the input initial_h")
    model = lstm_onnx.load(path, provider="cpu", states=STATES)
    with pytest.raises(InputError, match="cannot take a batch of 2: its states have fixed sizes"):
        model.stream(batch=2)
    stream = model.stream()
    stream.state = {name: given[name] for name in STATES}
    parts = [stream(part) for part in np.split(given["X"], [1, 2, 5])]
    expected = Node(given).reference()
    compare({"Y": np.concatenate(parts)}, {"Y": expected["Y"]})
    compare(stream.state, {"initial_h": expected["Y_h"], "initial_c": expected["Y_c"]})
    with pytest.raises(InputError, match="must be 1"):
        model.run({"X": given["X"], "initial_h": np.zeros((1, 2, H), np.float32)})


@pytest.mark.parametrize("states", [{"initial_h": "Y_c", "nothing": "Y_h"}, {"initial_h": "nowhere"}])
def test_states_that_are_not_there_are_named(states, tmp_path):
    path = Node(inputs_of("initial_h", "initial_c")).save(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"'no(thing|where)' does not exist"):
        lstm_onnx.load(path, provider="cpu", states=states)


def test_int64_lengths_through_a_cast(tmp_path):
    """The operator takes int32, and torch's lengths are int64."""
    given = inputs_of("sequence_lens", directions=2)
    nodes = [
        helper.make_node("Cast", ["lengths"], ["sequence_lens"], to=TensorProto.INT32),
        lstm_node("X", "W", "R", "B", "sequence_lens", direction="bidirectional"),
    ]
    shapes = {"Y": ("time", 2, "batch", H), "Y_h": (2, "batch", H), "Y_c": (2, "batch", H)}
    ends = {"X": ("time", "batch", SIZE), "lengths": ("batch",)}
    graph = graph_of(nodes, ends, shapes, weights(given), {"lengths": TensorProto.INT64})
    path = save(graph, tmp_path / "m.onnx")
    report = check(path, provider="cpu")
    assert report, str(report)
    assert inspect(path).lstms[0].lengths == "lengths"
    expected = Node(given, {"direction": "bidirectional"}).reference()
    feeds = {"X": given["X"], "lengths": given["sequence_lens"].astype(np.int64)}
    compare(run(path, feeds), expected)
    with pytest.raises(InputError, match="int64"):
        run(path, {"X": given["X"], "lengths": given["sequence_lens"]})
    # What lies behind a row's end is not looked at.
    feeds["X"] = np.where(np.arange(T)[:, None, None] < given["sequence_lens"][:, None], given["X"], np.nan)
    with pytest.warns(RuntimeWarning, match="X has a NaN"):  # nothing says that these are its lengths
        found = run(path, feeds)
    compare(found, expected)


def test_int64_lengths_without_a_cast_are_refused(tmp_path):
    given = inputs_of("sequence_lens")
    ends = {"X": ("time", "batch", SIZE), "sequence_lens": ("batch",)}
    node = lstm_node("X", "W", "R", "B", "sequence_lens", outputs=["Y"])
    types = {"sequence_lens": TensorProto.INT64}
    graph = graph_of([node], ends, {"Y": ("time", 1, "batch", H)}, weights(given), types)
    path = save(graph, tmp_path / "m.onnx")
    require_failure(path, "lengths-type", "int64")
    with pytest.raises(ModelError, match="int64"):
        lstm_onnx.load(path, provider="cpu")


def test_batch_first_by_layout_is_refused_and_by_transpose_is_right(tmp_path):
    given = inputs_of("initial_h", "initial_c")
    swapped = {name: array.swapaxes(0, 1) for name, array in given.items() if name not in WEIGHTS}
    layout = Node({**given, **swapped}, {"layout": 1}).save(tmp_path / "layout.onnx")
    with pytest.raises(ModelError, match="layout == 1"):
        lstm_onnx.load(layout, provider="cpu")
    require_failure(layout, LAYOUT_RULE, "layout")
    nodes = [
        helper.make_node("Transpose", ["x"], ["X"], perm=[1, 0, 2]),
        lstm_node("X", "W", "R", "B", outputs=["Y"]),
        helper.make_node("Squeeze", ["Y", "one"], ["yt"]),
        helper.make_node("Transpose", ["yt"], ["y"], perm=[1, 0, 2]),
    ]
    stored = {**weights(given), "one": np.array([1])}
    graph = graph_of(nodes, {"x": ("batch", "time", SIZE)}, {"y": ("batch", "time", H)}, stored)
    path = save(graph, tmp_path / "m.onnx")
    report = check(path, provider="cpu")
    assert report, str(report)
    expected = Node({name: given[name] for name in ("X", "W", "R", "B")}).reference()["Y"][:, 0].swapaxes(0, 1)
    compare(run(path, {"x": given["X"].swapaxes(0, 1)}), {"y": expected})


def test_double_is_refused_and_half_is_near(tmp_path):
    node = Node(inputs_of("initial_h"))
    for dtype, kind in ((np.float64, TensorProto.DOUBLE), (np.float16, TensorProto.FLOAT16)):
        typed = Node({name: array.astype(dtype) for name, array in node.inputs.items()})
        path = typed.save(tmp_path / f"{np.dtype(dtype)}.onnx", dtype=kind)
        assert inspect(path).lstms[0].dtype == np.dtype(dtype).name
        assert inspect(path).lstms[0].bytes == PARAMETERS * np.dtype(dtype).itemsize
        if dtype == np.float64:
            with pytest.raises(ProviderError, match="float64"):
                lstm_onnx.load(path, provider="cpu")
            require_failure(path, DOUBLE_RULE, "float64")
        else:
            results = run(path, typed.feeds())
            assert {array.dtype for array in results.values()} == {np.dtype(np.float16)}
            compare(results, typed.reference(), atol=2e-3, rtol=0)
            assert check(path, provider="cpu")


def test_weights_by_way_of_other_nodes(tmp_path):
    """Constants, a Cast from half, an Identity and int8 with its scale are weights too."""
    given = inputs_of()
    q = np.clip(np.round(given["R"] / 0.01), -127, 127).astype(np.int8)
    nodes = [
        helper.make_node("Constant", [], ["W"], value=numpy_helper.from_array(given["W"])),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["R"]),
        helper.make_node("Cast", ["half"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["b"], ["B"]),
        lstm_node("X", "W", "R", "B", outputs=["Y"]),
    ]
    stored = {"q": q, "scale": np.float32(0.01).reshape(()), "half": given["B"].astype(np.float16)}
    graph = graph_of(nodes, {"X": ("time", "batch", SIZE)}, {"Y": ("time", 1, "batch", H)}, stored)
    path = save(graph, tmp_path / "m.onnx")
    (found,) = inspect(path).lstms
    assert (found.input_size, found.hidden_size, found.bias, found.parameters) == (SIZE, H, True, PARAMETERS)
    assert found.bytes == 4 * 4 * H * SIZE + 4 * H * H + 2 * 8 * H
    used = {**given, "R": q * np.float32(0.01), "B": given["B"].astype(np.float16).astype(np.float32)}
    compare(run(path, {"X": given["X"]}), Node(used, {}, ("Y",)).reference())
    assert check(path, provider="cpu")


def test_one_set_of_weights_for_two_nodes(tmp_path):
    """Each LSTM has its parameters, and the model has them once."""
    given = inputs_of()
    second = inputs_of(seed=1)["X"]
    nodes = [
        lstm_node("X", "W", "R", "B", name="first", outputs=["", "a", "c"]),
        lstm_node("X2", "W", "R", "B", "", "a", "c", name="second", outputs=["Y"]),
    ]
    ends = {"X": ("time", "batch", SIZE), "X2": ("time2", "batch", SIZE)}
    graph = graph_of(nodes, ends, {"Y": ("time2", 1, "batch", H)}, weights(given))
    path = save(graph, tmp_path / "m.onnx")
    found = inspect(path)
    assert [lstm.name for lstm in found.lstms] == ["first", "second"]
    assert [lstm.parameters for lstm in found.lstms] == [PARAMETERS] * 2
    assert found.parameters == PARAMETERS
    assert check(path, provider="cpu")
    first = Node(given).reference()
    after = {"X": second, "initial_h": first["Y_h"], "initial_c": first["Y_c"]}
    expected = Node({**given, **after}, {}, ("Y",)).reference()
    compare(run(path, {"X": given["X"], "X2": second}), expected)


def external(folder: Path, location: str) -> tuple[Node, Path]:
    """A file whose W, R and B lie in another one."""
    node = Node(inputs_of())
    path = node.save(folder / "m.onnx")
    model = onnx.load_model(path)
    content = b""
    for tensor in model.graph.initializer:
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": location, "offset": str(len(content)), "length": str(len(raw))}
        tensor.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items())
        content += raw
    path.write_bytes(model.SerializeToString())
    target = Path(os.path.normpath(folder / location))
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)
    return node, path


@pytest.mark.parametrize("location", ["weights.bin", "inner/weights.bin"])
def test_external_data(location, tmp_path, monkeypatch):
    node, path = external(tmp_path, location)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # the data is beside the file, wherever one is
    compare(run(path, {"X": node.inputs["X"]}), node.reference())
    report = check(path, provider="cpu")
    assert report, str(report)
    found = inspect(path)
    assert found.lstms[0].parameters == PARAMETERS
    assert found.file_bytes == path.stat().st_size + 4 * PARAMETERS
    assert found.notes == ("the states of rnn are not inputs, so that it cannot be streamed: see lstm-onnx repair",)
    (tmp_path / location).unlink()
    with pytest.raises(ModelError, match=r"weights\.bin"):
        lstm_onnx.load(path, provider="cpu")
    assert not check(path, provider="cpu")
    assert "is missing" in inspect(path).notes[0]


def test_external_data_outside_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    _, path = external(folder, "../weights.bin")
    with pytest.raises(ModelError):
        lstm_onnx.load(path, provider="cpu")
    require_failure(path, EXTERNAL_RULE, "..")
    assert "outside the model's folder" in inspect(path).notes[0]
    assert inspect(path).lstms[0].parameters == PARAMETERS
