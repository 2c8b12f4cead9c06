"""The rules on sequence_lens: who takes padding for data, and who does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from lstm_onnx.check import CheckReport, check
from tests.conformance.by_hand import SIZE, H, graph_of, inputs_of, lstm_node, weights
from tests.conformance.nodes import save

from ..models import PLAIN, export, failing

INTS = {"last": -1, "zero": 0, "one": [1], "time": [0], "features": [2], "minus": [-1], "minus_two": [-2]}
INTS |= {"end": [2**63 - 1], "start": [0], "keep": [0, 0, H], "flat": [-1, H], "swapped_last": [1]}
STORED = {name: np.array(number, np.int64) for name, number in INTS.items()}
STORED |= {"m": np.ones((H, 2), np.float32), "bias": np.ones(H, np.float32)}
ENDS: dict[str, Any] = {"X": ("time", "batch", SIZE), "lengths": ("batch",)}


def n(kind: str, *inputs: str, to: str = "z", **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [to], f"{kind.lower()}_{to}", **attributes)


def second(source: str, *, lengths: str = "", outputs: Any = ("z",), **attributes: Any) -> NodeProto:
    names = [source, "W2", "R", "B", lengths] if lengths else [source, "W2", "R", "B"]
    return lstm_node(*names, name="second", outputs=list(outputs), **attributes)


def checked(folder: Path, *tail: NodeProto, rank: int = 3, kind: int = TensorProto.FLOAT, **inputs: Any) -> CheckReport:
    """An LSTM with lengths, its output `y` (time, batch, H), and what comes behind, up to `z`."""
    first = lstm_node("X", "W", "R", "B", "lengths", outputs=["Y", "Y_h"], name="first")
    given = inputs_of()
    stored = {**weights(given), **STORED, "W2": np.ones((1, 4 * H, H), np.float32)}
    used = {name for node in (*tail, first) for name in node.input}
    graph = graph_of(
        [first, n("Squeeze", "Y", "one", to="y"), *tail],
        {**ENDS, **inputs},
        {"z": (None,) * rank, "Y_h": (1, "batch", H)},
        {name: array for name, array in stored.items() if name in used or name == "one"},
        {"lengths": TensorProto.INT32, "which": TensorProto.BOOL, "z": kind},
    )
    return check(save(graph, folder / "m.onnx"), provider="cpu")


PADDING = {
    "a mean": [n("ReduceMean", "y", axes=[0])],
    "a mean behind a linear layer": [n("MatMul", "y", "m", to="p"), n("ReduceMean", "p", axes=[0])],
    "a mean of batch first": [n("Transpose", "y", to="t", perm=[1, 0, 2]), n("ReduceMean", "t", axes=[-2])],
    "a mean over everything": [n("ReduceMean", "y")],
    "a maximum of its negative": [n("Neg", "y", to="p"), n("ReduceMax", "p", axes=[0])],
    "the last step": [n("Gather", "y", "last", axis=0)],
    "the last step of batch first": [n("Transpose", "y", to="t", perm=[1, 0, 2]), n("Gather", "t", "last", axis=1)],
    "a slice of the last step": [n("Slice", "y", "minus", "end", "time")],
    "a minimum": [n("ReduceMin", "y", axes=[0])],
    "a sum behind a bias": [n("Add", "y", "bias", to="p"), n("ReduceSum", "p", "time")],
    "a sum of sigmoids": [n("Sigmoid", "y", to="p"), n("ReduceL1", "p", axes=[0])],
    "a sum behind a second layer": [second("y", outputs=["y2"]), n("ReduceSum", "y2", "time")],
    "a softmax over time": [n("Softmax", "y", axis=0)],
    "the logarithm of a softmax over time": [n("LogSoftmax", "y", axis=0)],
    "a pool": [n("Transpose", "y", to="t", perm=[1, 2, 0]), n("GlobalMaxPool", "t")],
    "a second layer's last state": [second("y", outputs=["z", "z_h"]), n("Identity", "z_h", to="zz")],
    "a second layer in reverse": [second("y", direction="reverse")],
    "behind a second layer": [second("y", outputs=["y2"]), n("ReduceMean", "y2", axes=[0])],
    "behind dropout and more": [
        n("Dropout", "y", to="a"),
        n("Relu", "a", to="b"),
        n("Add", "b", "bias", to="c"),
        n("Unsqueeze", "c", "one", to="d"),
        n("Squeeze", "d", "one", to="e"),
        n("Reshape", "e", "keep", to="f"),
        n("ReduceMean", "f", axes=[0]),
    ],
}
MASKED = {
    "a sum": [n("ReduceSum", "y", "time")],
    "a norm behind a linear layer": [n("MatMul", "y", "m", to="p"), n("ReduceL2", "p", axes=[0])],
    "a mean over features": [n("ReduceMean", "y", axes=[2])],
    "a mean behind a mask": [n("Mul", "y", "mask", to="p"), n("ReduceMean", "p", axes=[0])],
    "a softmax behind a mask": [n("Add", "y", "mask", to="p"), n("Softmax", "p", axis=0)],
    "a softmax over features": [n("Softmax", "y", axis=-1)],
    "a choice by the lengths": [n("Gather", "y", "picked", axis=0)],
    "the first step": [n("Gather", "y", "zero", axis=0)],
    "the last feature": [n("Gather", "y", "last", axis=2)],
    "all but the last step": [n("Slice", "y", "start", "minus", "time")],
    "the final state": [n("Identity", "Y_h")],
    "the output as it is": [n("Identity", "y")],
    "a second layer with the lengths": [second("y", lengths="lengths", outputs=["z", "z_h"])],
    "a second layer that goes forward": [second("y")],
    "a bias of the mask's size": [n("MatMul", "mask", "y")],
}
LAST_STATE = "a second layer's last state"


@pytest.mark.parametrize("name", PADDING)
def test_padding_that_is_taken_for_data_is_told(name: str, tmp_path: Path):
    report = checked(tmp_path, *PADDING[name], rank=rank_of(PADDING[name][-1], name))
    said = [finding for finding in report.findings if finding.rule == "lengths-ignored"]
    assert [finding.mark for finding in said] == ["warn"], str(report)
    assert "first before it has lengths" in said[0].message
    reader = "second" if name.startswith("a second") else PADDING[name][-1].name
    assert said[0].where == reader


@pytest.mark.parametrize("name", MASKED)
def test_what_knows_of_the_padding_is_left_alone(name: str, tmp_path: Path):
    masks: dict[str, Any] = {"mask": ("time", "batch", 1)} if any("mask" in node.input for node in MASKED[name]) else {}
    masks |= {"picked": ("batch",)} if any("picked" in node.input for node in MASKED[name]) else {}
    report = checked(tmp_path, *MASKED[name], rank=rank_of(MASKED[name][-1], name), **masks)
    assert "lengths-ignored" in report.silent, str(report)


def rank_of(node: NodeProto, name: str) -> int:
    """Of what the node makes."""
    if node.op_type == "LSTM" or LAST_STATE in name:
        return 4
    kept = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
    return 3 - (node.op_type == "Gather" and len(STORED.get(node.input[1], np.ones(1)).shape) == 0) - (not kept)


@pytest.mark.parametrize("lengths", ["", "lengths"])
def test_branches_may_have_values_of_one_name(lengths: str, tmp_path: Path):
    """Only one branch of an If reads padding, or none does."""
    first = lstm_node("X", "W", "R", "B", "lengths", outputs=["Y"], name="first")
    other = lstm_node("X2", "W", "R", "B", *([lengths] if lengths else []), outputs=["Y"], name="other")
    branches = {
        f"{key}_branch": helper.make_graph(
            [layer, last], key, [], [helper.make_tensor_value_info(last.output[0], TensorProto.FLOAT, None)]
        )
        for key, layer, last in (("then", first, n("Identity", "Y")), ("else", other, n("ReduceMean", "Y", axes=[0])))
    }
    graph = graph_of(
        [helper.make_node("If", ["which"], ["choice"], "choice", **branches)],
        {**ENDS, "X2": ENDS["X"], "which": ()},
        {"choice": (None,) * 4},
        weights(inputs_of()),
        {"lengths": TensorProto.INT32, "which": TensorProto.BOOL},
    )
    found = check(save(graph, tmp_path / "m.onnx"), provider="cpu").findings
    told = [item.where for item in found if item.rule == "lengths-ignored" and item.violated]
    assert told == (["reducemean_z"] if lengths else [])


def test_without_lengths_there_is_no_padding(tmp_path: Path):
    node = lstm_node("X", "W", "R", "B", outputs=["Y"], name="first")
    graph = graph_of([node, n("ReduceMean", "Y", axes=[0])], {"X": ENDS["X"]}, {"z": (None,) * 4}, weights(inputs_of()))
    assert "lengths-ignored" in check(save(graph, tmp_path / "m.onnx"), provider="cpu").silent


def test_lengths_that_are_wider_than_the_operator_takes(tmp_path: Path):
    given = inputs_of("sequence_lens")
    for kind, told in ((TensorProto.INT64, True), (TensorProto.INT32, False)):
        graph = graph_of(
            [lstm_node("X", "W", "R", "B", "lengths", outputs=["Y"])],
            ENDS,
            {"Y": ("time", 1, "batch", H)},
            weights(given),
            {"lengths": kind},
        )
        report = check(save(graph, tmp_path / "m.onnx"), provider="cpu")
        assert bool(report) is not told
        if told:
            assert "sequence_lens lengths is int64, but must be int32" in failing(report, "lengths-type")


def test_constant_lengths_are_shown_and_not_at_length(tmp_path: Path):
    node = lstm_node("X", "W", "R", "B", "lengths", outputs=["Y"])
    for lengths, shown in (([5, 3], "[5, 3]"), (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]")):
        stored = {**weights(inputs_of()), "lengths": np.array(lengths, np.int32)}
        graph = graph_of([node], {"X": ENDS["X"]}, {"Y": ("time", 1, "batch", H)}, stored)
        text = str(check(save(graph, tmp_path / "m.onnx"), provider="cpu"))
        assert f"sequence_lens lengths is the constant {shown}" in text


# --- Inputs that are ignored ---


def ignored(folder: Path, *nodes: NodeProto, **inputs: Any) -> list[str]:
    lstm = lstm_node("X", "W", "R", "B", outputs=["Y"])
    graph = graph_of(
        [lstm, *nodes],
        {"X": ENDS["X"], **inputs},
        {"z": (None,) * 4},
        weights(inputs_of()),
        {"ahead": TensorProto.BOOL},
    )
    report = check(save(graph, folder / "m.onnx"), provider="cpu")
    return [finding.where for finding in report.findings if finding.rule == "ignored-input" and finding.violated]


def test_an_input_that_nothing_reads(tmp_path: Path):
    assert ignored(tmp_path, n("Identity", "Y"), a=("n",)) == ["a"]


def test_an_input_that_is_read_in_vain(tmp_path: Path):
    assert ignored(tmp_path, n("Identity", "Y"), n("Neg", "a", to="b"), a=("n",)) == ["a"]


def test_an_input_of_which_the_shape_alone_is_used(tmp_path: Path):
    cast = helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT)
    nodes = [n("Shape", "a", to="s"), cast, n("ReduceSum", "f", to="k"), n("Add", "Y", "k")]
    assert ignored(tmp_path, *nodes, a=("n",)) == ["a"]


def test_an_input_that_a_body_reads(tmp_path: Path):
    branches = {
        name: helper.make_graph([n(kind, "a", to=kind)], name, [], [helper.make_tensor_value_info(kind, 1, [None] * 4)])
        for name, kind in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    nodes = [helper.make_node("If", ["ahead"], ["b"], **branches), n("Add", "Y", "b")]
    assert ignored(tmp_path, *nodes, a=(1, 1, 1, H), ahead=()) == []


def test_initializers_that_are_inputs_are_no_inputs(tmp_path: Path):
    graph = graph_of(
        [lstm_node("X", "W", "R", "B", outputs=["z"])],
        {"X": ENDS["X"], "B": (1, 8 * H), "unused": (1,)},
        {"z": (None,) * 4},
        {**weights(inputs_of()), "unused": np.ones(1, np.float32)},
    )
    report = check(save(graph, tmp_path / "m.onnx"), provider="cpu")
    assert "ignored-input" in report.silent
    assert onnx.load(tmp_path / "m.onnx").graph.input[-1].name == "unused"


def _below(folder: Path, *, states: bool, reverse: bool = False, beside: bool = False) -> CheckReport:
    """A layer without lengths, and one with lengths that reads its output, or what it reads."""
    first = lstm_node(
        "X", "W", "R", "B", outputs=["Y", "Y_h"], name="first", **({"direction": "reverse"} if reverse else {})
    )
    source = "X" if beside else "y"
    weight = "W" if beside else "W2"
    last = lstm_node(source, weight, "R", "B", "lengths", outputs=["z"], name="last")
    given = inputs_of()
    stored = {**weights(given), **STORED, "W2": np.ones((1, 4 * H, H), np.float32)}
    nodes = [first, n("Squeeze", "Y", "one", to="y"), last]
    used = {name for node in nodes for name in node.input}
    ends = {"z": (None,) * 4, **({"Y_h": (1, "batch", H)} if states else {}), **({"y": (None,) * 3} if beside else {})}
    graph = graph_of(
        nodes,
        ENDS,
        ends,
        {name: array for name, array in stored.items() if name in used},
        {"lengths": TensorProto.INT32},
    )
    return check(save(graph, folder / "m.onnx"), provider="cpu")


@pytest.mark.parametrize("beside", [False, True], ids=["below", "beside"])
def test_a_layer_without_lengths_by_one_that_has_them(beside: bool, tmp_path: Path) -> None:
    for options in ({"states": True}, {"states": False, "reverse": True}):
        report = _below(tmp_path, beside=beside, **options)
        (finding,) = [item for item in report.findings if item.rule == "lengths-ignored" and item.violated]
        assert (finding.where, finding.severity) == ("first", "warning")
        assert finding.message == "LSTM has no lengths and reads padding; last, over the same steps, has lengths"
    # Forwards, and with its states left alone, it gives the same for every real step.
    report = _below(tmp_path, states=False, beside=beside)
    assert not [item for item in report.findings if item.rule == "lengths-ignored" and item.violated]


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("quantized", [False, True], ids=["float", "int8"])
def test_any_layer_of_ours_that_lost_its_lengths_fails(layer: int, quantized: bool, tmp_path: Path) -> None:
    path = export(tmp_path, {**PLAIN, "num_layers": 3}, lengths=True)
    if quantized:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(path, tmp_path / "q.onnx")
        path = tmp_path / "q.onnx"
    assert check(path, provider="cpu")
    model = onnx.load(path)
    layers = [node for node in model.graph.node if node.op_type in ("LSTM", "DynamicQuantizeLSTM")]
    assert len(layers) == 3
    layers[layer].input[4] = ""
    onnx.save(model, path)
    assert f"{layers[layer].name}: " in failing(check(path, provider="cpu"), "lengths-ignored")


@pytest.mark.parametrize("steps", [(-1, 0), (0, -1)])
def test_a_constant_is_that_of_its_own_branch(steps: tuple[int, int], tmp_path: Path):
    """Two branches may use one name for two constants."""
    then, other = (
        helper.make_graph(
            [n("Gather", "y", "step", to="taken", axis=0)],
            "branch",
            [],
            [helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(np.array(step), "step")],
        )
        for step in steps
    )
    choice = n("If", "which", then_branch=then, else_branch=other)
    found = checked(tmp_path, choice, rank=2, which=()).findings
    assert [item.message for item in found if item.rule == "lengths-ignored"] == [
        "Gather takes the last padded step; first before it has lengths"
    ]
