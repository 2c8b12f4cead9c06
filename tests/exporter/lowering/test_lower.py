"""Opaque nodes and states, on graphs written by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

from lstm_onnx import ExportError
from lstm_onnx.exporter.lowering.carried_states import carried_states
from lstm_onnx.exporter.lowering.explicit_states import expose_states
from lstm_onnx.exporter.lowering.lower import lower_calls, opaque_calls
from lstm_onnx.exporter.lowering.rename import TracedGraph
from lstm_onnx.exporter.opaque.recurrent_module import RecurrentModule
from lstm_onnx.exporter.tracing.opaque_node import DOMAIN, OP_TYPE
from lstm_onnx.onnxgraph.builder import Nodes
from lstm_onnx.spec import ExportOptions, LSTMSpec

SPEC = LSTMSpec(3, 4)


def recurrent(path: str = "enc.lstm") -> RecurrentModule:
    rng = np.random.default_rng(0)
    shapes = SPEC.parameter_shapes()
    return RecurrentModule(
        path, SPEC, False, {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}
    )


def opaque(inputs: list[str], outputs: list[str], path: str = "enc.lstm", call: int = 0) -> NodeProto:
    name = f"{path}/{call}"
    return helper.make_node(OP_TYPE, inputs, outputs, name=name, domain=DOMAIN, module=path, call=call, batch_first=0)


def graph(nodes: list[NodeProto], outputs: list[str], inputs: tuple[str, ...] = ("x",)) -> TracedGraph:
    state = (1, "batch", 4)
    dims: dict[str, tuple[int | str, ...]] = {"x": ("time", "batch", 3), "lengths": ("batch",)}
    dims |= dict.fromkeys(["y", "z"], ("time", "batch", 4)) | dict.fromkeys(["h", "c", "h_in", "c_in"], state)
    types = dict.fromkeys(dims, int(TensorProto.FLOAT)) | {"lengths": int(TensorProto.INT64)}
    return TracedGraph(Nodes(nodes), list(inputs), outputs, dims, types)


def as_they_stand(_pairs: Mapping[str, str], _doubtful: Collection[str]) -> set[str]:
    """In the place of a run: states are paired by the graph alone."""
    return set()


def test_a_state_that_is_absent_becomes_an_input_and_an_output() -> None:
    found = graph([opaque(["x"], ["y", "h", "c"])], ["y"])
    calls = opaque_calls(found, {"enc.lstm": recurrent()})
    lifted = expose_states(found, calls)
    assert lifted.states == {"enc.lstm.h0": "enc.lstm.hn", "enc.lstm.c0": "enc.lstm.cn"}
    assert found.inputs == ["x", "enc.lstm.h0", "enc.lstm.c0"]
    assert found.outputs == ["y", "enc.lstm.hn", "enc.lstm.cn"]
    lower_calls(found, calls, ExportOptions())
    assert [node.op_type for node in found.nodes.nodes].count("LSTM") == 1
    assert not any(node.domain for node in found.nodes.nodes)
    assert {"enc/lstm/l0/W", "enc/lstm/l0/R", "enc/lstm/l0/B"} <= set(found.nodes.initializers)


def test_a_final_state_that_is_an_output_already_keeps_that_name() -> None:
    found = graph([opaque(["x"], ["y", "h", "c"])], ["y", "h"])
    expose_states(found, opaque_calls(found, {"enc.lstm": recurrent()}))
    assert found.outputs == ["y", "h", "enc.lstm.hn", "enc.lstm.cn"]
    assert [(node.op_type, list(node.output)) for node in found.nodes.nodes[1:]] == [("Identity", ["enc.lstm.hn"])]


def test_a_state_from_data_stays_inside_and_one_from_shapes_does_not() -> None:
    shape = helper.make_node("Shape", ["x"], ["s"], name="s")
    zeros = helper.make_node("ConstantOfShape", ["s"], ["h_made"], name="zeros")
    found = graph([shape, zeros, opaque(["x", "h_made", "h_made"], ["y", "h", "c"])], ["y"])
    assert len(expose_states(found, opaque_calls(found, {"enc.lstm": recurrent()})).states) == 2
    mean = helper.make_node("ReduceMean", ["x"], ["h_made"], name="mean")
    found = graph([mean, opaque(["x", "h_made", "h_made"], ["y", "h", "c"])], ["y"])
    lifted = expose_states(found, opaque_calls(found, {"enc.lstm": recurrent()}))
    assert lifted.states == {}
    assert lifted.notes == ["enc.lstm starts from states that the model computes, which stay internal; it has no h0"]


def test_a_state_from_an_input_is_said_to_be_missing_from_the_outputs_alone() -> None:
    nodes = [opaque(["x", "h_in", "c_in"], ["y", "h", "c"])]
    for outputs, notes in ((["y", "h", "c"], 0), (["y"], 1)):
        found = graph(list(nodes), outputs, ("x", "h_in", "c_in"))
        calls = opaque_calls(found, {"enc.lstm": recurrent()})
        lifted = expose_states(found, calls, carried_states(found, calls, as_they_stand))
        assert lifted.states == {}
        assert len(lifted.notes) == notes
    assert lifted.notes[0].startswith("enc.lstm starts from h_in, whose next value forward does not return")


def test_states_of_the_forwards_own_are_paired_behind_reshaping() -> None:
    nodes = [
        helper.make_node("Identity", ["h_in"], ["h0"], name="i"),
        opaque(["x", "h0", "c_in"], ["y", "h", "c"]),
        helper.make_node("Identity", ["h"], ["z"], name="o"),
    ]
    found = graph(nodes, ["y", "z", "c"], ("x", "h_in", "c_in"))
    found.dims["z"] = found.dims["h_in"]
    pairs = carried_states(found, opaque_calls(found, {"enc.lstm": recurrent()}), as_they_stand)
    assert pairs == {"h_in": "z", "c_in": "c"}


def test_a_decoders_end_is_no_next_value_of_its_encoders_start() -> None:
    nodes = [
        opaque(["x", "h_in", "c_in"], ["y", "h0", "c0"]),
        opaque(["y", "h0", "c0"], ["z", "h", "c"], path="dec.lstm"),
    ]
    found = graph(nodes, ["z", "h", "c"], ("x", "h_in", "c_in"))
    modules = {path: recurrent(path) for path in ("enc.lstm", "dec.lstm")}
    assert carried_states(found, opaque_calls(found, modules), as_they_stand) == {}


def test_lengths_are_cast_once_and_calls_share_their_weights() -> None:
    nodes = [opaque(["x", "", "", "lengths"], ["y"]), opaque(["x", "", "", "lengths"], ["z"], call=1)]
    found = graph(nodes, ["y", "z"], ("x", "lengths"))
    lower_calls(found, opaque_calls(found, {"enc.lstm": recurrent()}), ExportOptions())
    assert [node.name for node in found.nodes.nodes if node.op_type == "Cast"] == ["lengths/int32"]
    names = [node.name for node in found.nodes.nodes if node.op_type == "LSTM"]
    assert names == ["enc/lstm/l0/LSTM", "enc/lstm/call2/l0/LSTM"]
    assert sum(array.size > 4 for array in found.nodes.initializers.values()) == 3


def test_a_recurrent_module_within_a_branch_is_refused() -> None:
    body = helper.make_graph([opaque(["x"], ["y"])], "then", [], [])
    branch = helper.make_node("If", ["x"], ["y"], name="choice", then_branch=body, else_branch=body)
    with pytest.raises(ExportError, match=r"choice: a recurrent module is called within a branch or a loop \(If\)"):
        opaque_calls(graph([branch], ["y"]), {"enc.lstm": recurrent()})
