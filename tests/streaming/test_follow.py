"""Graphs by hand: which operators compute each step separately, and the reasons for those that do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from lstm_onnx.streaming import TimeAxis, follow_time

H = 3
STATES = {"h0": "hn", "c0": "cn"}
FLOAT = TensorProto.FLOAT


def node(op_type: str, *inputs: str, to: str | tuple[str, ...], domain: str = "", **attributes: Any) -> NodeProto:
    outputs = (to,) if isinstance(to, str) else to
    return helper.make_node(op_type, inputs, outputs, name=f"the/{op_type}", domain=domain, **attributes)


LSTM = node("LSTM", "x", "W", "R", "", "", "h0", "c0", to=("Y", "hn", "cn"), hidden_size=H)


def model(*nodes: NodeProto, output: str = "z", more: dict[str, Any] | None = None, **constants: Any) -> ModelProto:
    """An LSTM with states over x (time, batch, 3), which gives Y (time, 1, batch, 3), and then `nodes`."""
    stored = {"W": np.zeros((1, 4 * H, H), np.float32), "R": np.zeros((1, 4 * H, H), np.float32), **constants}
    shapes = {"x": ("time", "batch", H), "h0": (1, "batch", H), "c0": (1, "batch", H), **(more or {})}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in (output, "hn", "cn")],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def after(*nodes: NodeProto, **constants: Any) -> TimeAxis:
    return follow_time(model(LSTM, *nodes, **constants), STATES)


def loop(read: str = "ones", *, first: str = "zeros", op: str = "Identity") -> NodeProto:
    """A Scan over x that adds `read` to each step; it carries a value on by `op`."""
    parts = [node(op, "carried", to="next"), node("Add", "entry", read, to="each")]
    ins, outs = ([helper.make_tensor_value_info(name, FLOAT, None) for name in names] for names in (IN, OUT))
    body = helper.make_graph(parts, "body", ins, outs)
    return node("Scan", first, "x", to=("end", "z"), body=body, num_scan_inputs=1)


IN, OUT = ("carried", "entry"), ("next", "each")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


PASSES: dict[str, tuple[NodeProto, ...]] = {
    "an activation": (node("Relu", "Y", to="z"),),
    "a product with a weight": (node("MatMul", "Y", "weight", to="z"),),
    "a softmax over features": (node("Softmax", "Y", to="z", axis=-1),),
    "a mean over features": (node("ReduceMean", "Y", "last", to="z"),),
    "a layer norm": (node("LayerNormalization", "Y", "ones", to="z", axis=-1),),
    "a transpose": (node("Transpose", "Y", to="z", perm=[2, 0, 1, 3]),),
    "an axis of 1 taken out": (node("Squeeze", "Y", "one", to="z"),),
    "batch and time as one axis and back": (
        node("Reshape", "Y", "rows", to="r"),
        node("MatMul", "r", "weight", to="m"),
        node("Shape", "x", to="s"),
        node("Slice", "s", "zero", "two", to="bt"),
        node("Concat", "bt", "minus_one", to="shape", axis=0),
        node("Reshape", "m", "shape", to="z"),
    ),
    "a window of one step": (node("Transpose", "x", to="t", perm=[1, 2, 0]), node("Conv", "t", "point", to="z")),
    "a loop whose only state is the same in all steps": (loop(),),
    "the last step, for itself": (node("Gather", "Y", "minus_one_scalar", to="g"), node("Relu", "g", to="z")),
    "the whole of a slice": (node("Slice", "Y", "zero", "end", "zero", to="z"),),
    "a guard against no steps at all": (
        node("Size", "x", to="entries"),
        node("Min", "entries", "one_scalar", to="some"),
        node("Sub", "some", "one_scalar", to="none"),
        node("Shape", "x", to="s"),
        node("Add", "s", "none", to="shape"),
        node("Reshape", "x", "shape", to="z"),
    ),
    "zeros of the input's shape": (
        node("Shape", "Y", to="s"),
        node("ConstantOfShape", "s", to="zeros"),
        node("Add", "Y", "zeros", to="z"),
    ),
}
MEETS: dict[str, tuple[tuple[NodeProto, ...], str]] = {
    "a softmax over time": ((node("Softmax", "Y", to="z", axis=0),), "the/Softmax (Softmax) goes over all steps"),
    "a mean over time": ((node("ReduceMean", "Y", "zero", to="z"),), "goes over all steps of a call"),
    "a mean over everything": ((node("ReduceMean", "Y", to="z"),), "goes over all steps of a call"),
    "a cumulative sum": ((node("CumSum", "Y", "zero_scalar", to="z"),), "adds up the steps of each call"),
    "a convolution": (
        (node("Transpose", "x", to="t", perm=[1, 2, 0]), node("Conv", "t", "wide", to="z", pads=[1, 1])),
        "the/Conv (Conv) computes one step from several",
    ),
    "a stride": (
        (node("Transpose", "x", to="t", perm=[1, 2, 0]), node("MaxPool", "t", to="z", kernel_shape=[1], strides=[2])),
        "computes one step from several",
    ),
    "a flip": ((node("Slice", "Y", "minus_one", "least", "zero", "minus_one", to="z"),), "slices the steps"),
    "all but the first step": ((node("Slice", "Y", "one", "end", "zero", to="z"),), "slices the steps"),
    "the first step": ((node("Gather", "Y", "zero_scalar", to="z"),), "selects steps by their indices"),
    "the last step, joined to all": (
        (node("Slice", "Y", "minus_one", "end", "zero", to="s"), node("Sub", "Y", "s", to="z")),
        "combines the last step, or a summary of all steps, with every step",
    ),
    "a bound of Clip that is the last step": (
        (
            node("Gather", "Y", "minus_one_scalar", to="s"),
            node("ReduceMax", "s", to="m"),
            node("Clip", "Y", "m", to="z"),
        ),
        "combines the last step, or a summary of all steps, with every step",
    ),
    "the last state, joined to all": ((node("Add", "x", "hn", to="z"),), "combines the last step"),
    "steps put in front": (
        (node("Concat", "zeros", "x", to="z", axis=0),),
        "concatenates further steps with those of the call",
    ),
    "padding": ((node("Pad", "x", "pads", to="z"),), "pads the steps of each call"),
    "a loop whose state changes": ((loop(op="Neg"),), "starts again at each call"),
    "a loop that reads the last state": (
        (loop("hn"),),
        "combines the last step, or a summary of all steps, with every step",
    ),
    "a loop that carries the last state along": ((loop(first="hn"),), "combines the last step, or a summary"),
    "a loop that reads all steps": ((loop("x"),), "the/Scan (Scan) reads all steps at each step"),
    "every pair of steps": (
        (
            node("Transpose", "x", to="a", perm=[1, 0, 2]),
            node("Transpose", "x", to="b", perm=[1, 2, 0]),
            node("MatMul", "a", "b", to="z"),
        ),
        "computes with every pair of steps",
    ),
    "positions": (
        (
            node("Shape", "x", to="s"),
            node("Gather", "s", "zero_scalar", to="n"),
            node("Range", "zero_scalar", "n", "one_scalar", to="p"),
            node("Unsqueeze", "p", "one_two", to="u"),
            node("Add", "x", "u", to="z"),
        ),
        "counts steps from the first of each call",
    ),
    "the number of steps": (
        (
            node("Shape", "x", to="s"),
            node("Gather", "s", "zero_scalar", to="n"),
            node("Div", "n", "thousand", to="d"),
            node("Add", "x", "d", to="z"),
        ),
        "computes with the number of steps",
    ),
    "a sum of ones": (
        (
            node("Shape", "x", to="s"),
            node("ConstantOfShape", "s", to="ones_"),
            node("ReduceSum", "ones_", "zero", to="n"),
            node("Div", "x", "n", to="z"),
        ),
        "goes over all steps of a call",
    ),
    "two steps made one": (
        (node("Transpose", "x", to="t", perm=[1, 0, 2]), node("Reshape", "t", "pairs", to="z")),
        "splits or merges steps",
    ),
    "an operator that nobody knows": (
        (node("Mystery", "Y", to="z", domain="com.example"),),
        "is not known to compute each step of a sequence separately",
    ),
    "an operator of another domain with a known name": (
        (node("Relu", "Y", to="z", domain="com.example"),),
        "is not known to compute each step of a sequence separately",
    ),
    "a second LSTM without states": (
        (node("Squeeze", "Y", "one", to="s"), node("LSTM", "s", "W", "R", to=("z", "", ""), hidden_size=H)),
        "starts again at each call",
    ),
    "a second LSTM that starts from the end of the first": (
        (node("LSTM", "x", "W", "R", "", "", "hn", "cn", to=("z", "", ""), hidden_size=H),),
        "starts from a value that is computed at the end of the sequence",
    ),
    "a scale from all numbers": (
        (node("DynamicQuantizeLinear", "x", to=("q", "s", "p")), node("DequantizeLinear", "q", "s", "p", to="z")),
        "computes its scale from all steps of a call",
    ),
}
CONSTANTS: dict[str, Any] = {
    "weight": np.zeros((H, H), np.float32),
    "ones": np.ones(H, np.float32),
    "point": np.zeros((4, H, 1), np.float32),
    "wide": np.zeros((4, H, 3), np.float32),
    "zeros": np.zeros((1, 1, H), np.float32),
    "zero": ints(0),
    "one": ints(1),
    "two": ints(2),
    "last": ints(-1),
    "minus_one": ints(-1),
    "one_two": ints(1, 2),
    "end": ints(2**63 - 1),
    "least": ints(-(2**63)),
    "rows": ints(-1, H),
    "pairs": ints(0, -1, 2 * H),
    "pads": ints(1, 0, 0, 0, 0, 0),
    "zero_scalar": np.array(0, np.int64),
    "one_scalar": np.array(1, np.int64),
    "minus_one_scalar": np.array(-1, np.int64),
    "thousand": np.array(1000, np.int64),
}


@pytest.mark.parametrize("case", PASSES)
def test_steps_that_do_not_meet(case: str) -> None:
    found = after(*PASSES[case], **CONSTANTS)
    assert found.names == {"time"}
    assert found.meeting is None
    assert found.by_hand is None


@pytest.mark.parametrize("case", MEETS)
def test_steps_that_meet(case: str) -> None:
    nodes, how = MEETS[case]
    found = after(*nodes, **CONSTANTS)
    assert found.names == {"time"}
    assert how in str(found.meeting)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_a_direction_that_starts_at_the_end(direction: str) -> None:
    lstm = node("LSTM", "x", "W", "R", "", "", "h0", "c0", to=("z", "hn", "cn"), hidden_size=H, direction=direction)
    found = follow_time(model(lstm), STATES)
    assert f"is {direction}: that direction starts at the sequence's end" in str(found.meeting)


def test_a_fixed_number_of_steps_from_the_end_is_no_step() -> None:
    both = node(
        "LSTM", "x", "W", "R", "", "", "h0", "c0", to=("z", "hn", "cn"), hidden_size=H, direction="bidirectional"
    )
    weights = {name: np.zeros((2, 4 * H, H), np.float32) for name in "WR"}
    for steps in (1, 5):
        shapes = {"x": (steps, "batch", H), "h0": (2, "batch", H), "c0": (2, "batch", H)}
        found = follow_time(model(both, more=shapes, **weights), STATES)
        assert found.names == set()
        assert ("starts at the sequence's end" in str(found.meeting)) == (steps > 1)


def test_one_state_of_two() -> None:
    lstm = node("LSTM", "x", "W", "R", "", "", "h0", to=("z", "hn", "cn"), hidden_size=H)
    found = follow_time(model(lstm), {"h0": "hn"})
    assert "starts again at each call: not all of its states are inputs and outputs of the file" in str(found.meeting)


def test_without_an_open_time_axis_a_call_is_a_step() -> None:
    conv = node("Conv", "signal", "wide", to="c")
    step = node("Transpose", "c", to="s", perm=[2, 0, 1])
    lstm = node("LSTM", "s", "W4", "R", "", "", "h0", "c0", to=("z", "hn", "cn"), hidden_size=H)
    shapes = {"signal": ("batch", H, 8)}
    found = follow_time(
        model(conv, step, lstm, more=shapes, wide=CONSTANTS["wide"], W4=np.zeros((1, 4 * H, 4), np.float32)), STATES
    )
    # x is an input that nothing reads; it is in all of the inputs' axes no more than the signal's are.
    assert found.meeting is None


def test_what_each_step_of_a_decoder_looks_at_is_not_time() -> None:
    """An attention over a memory of any length: its steps meet, and are not those of the stream."""
    attend = (
        node("Transpose", "x", to="q", perm=[1, 0, 2]),
        node("Transpose", "memory", to="k", perm=[0, 2, 1]),
        node("MatMul", "q", "k", to="scores"),
        node("Softmax", "scores", to="weights", axis=-1),
        node("MatMul", "weights", "memory", to="z"),
    )
    found = follow_time(model(LSTM, *attend, more={"memory": ("batch", "source", H)}), STATES)
    assert found.names == {"time"}
    assert found.meeting is None


def test_states_in_the_hands_of_other_operators_leave_it_open() -> None:
    """A cache of the last steps that the module keeps itself: right or wrong, the operators do not tell."""
    nodes = (
        node("Concat", "cache", "x", to="longer", axis=0),
        node("Slice", "longer", "minus_two", "end", "zero", to="cache_n"),
        node("Transpose", "longer", to="t", perm=[1, 2, 0]),
        node("Conv", "t", "wide", to="z"),
    )
    built = model(LSTM, *nodes, more={"cache": (2, "batch", H)}, minus_two=ints(-2), **CONSTANTS)
    built.graph.output.append(helper.make_tensor_value_info("cache_n", FLOAT, None))
    found = follow_time(built, {**STATES, "cache": "cache_n"})
    assert found.meeting is None
    assert found.by_hand is not None


def test_a_loop_that_reads_a_state_in_each_step() -> None:
    found = after(loop("h0"), **CONSTANTS)
    assert "(Scan) uses a state other than as a recurrent node's initial state" in str(found.by_hand)


def test_axes_that_have_to_be_equal_are_one() -> None:
    """Others name the same axis anew in each input."""
    nodes = (node("Add", "x", "bias", to="sum"), node("Softmax", "sum", to="z", axis=0))
    found = follow_time(model(LSTM, *nodes, more={"bias": ("unk__7", "unk__8", H)}), STATES)
    assert {"time", "unk__7"} <= found.names
    assert "goes over all steps" in str(found.meeting)


def test_a_node_that_lacks_an_input_does_not_end_the_walk() -> None:
    found = after(node("Gather", "Y", to="g"), node("Slice", "g", to="z"))
    assert found.names == {"time"}


def repeated(size: str) -> ModelProto:
    """The steps are resized to another number of them, and a recurrent layer goes along these."""
    lstm = node("LSTM", "y", "W", "R", "", "", "h0", "c0", to=("z", "hn", "cn"), hidden_size=H)
    graph = model(
        node("Resize", "x", "", "scales", to="y", mode="linear"), lstm, scales=np.array([2, 1, 1], np.float32)
    )
    graph.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, (size, "batch", H)))
    return graph


@pytest.mark.parametrize("size", ["2*time", "floor(2*time)"])
def test_an_axis_that_follows_from_time_is_no_other_axis(size: str) -> None:
    found = follow_time(repeated(size), STATES)
    assert "time" in found.names
    assert found.meeting is not None
    assert found.meeting.op_type == "Resize"


def test_steps_of_no_input_cannot_be_cut() -> None:
    found = follow_time(repeated("chosen"), STATES)
    assert found.meeting is not None
    assert found.meeting.how == "runs along an axis that no input has"
